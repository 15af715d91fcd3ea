"""A training step's roofline: its operations and its bytes, each at the most this machine does.

The rooflines of roofline.py, measured in turns with the steps. A layer's products take the rate of
the algorithm that the engine describes itself as using.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from bnnrun.bench.measure import Competitor, Timing
from bnnrun.bench.roofline import (
    BYTE_PRODUCTS,
    COPIED,
    COPY,
    FLOAT_PRODUCTS,
    LUT_SUMS,
    byte_products,
    float_products,
    lut_sums,
    popcount_roofline,
    rooflines,
)
from bnnrun.nn.engine import UPDATE, Algorithm, Engine
from bnnrun.roles import Implementation

UPDATE_BYTES = 24  # of a weight: w, m and v read and written

# Parts of a step, by what torch's profiler calls them.
PARTS = {
    "sums": (
        "PackedLinear", "PopcountConv", "WinogradConv", "BinaryLinear", "aten::conv2d",
        "aten::linear",
    ),
    "gradients of products": (
        "PackedLinearBackward", "PopcountConvBackward", "WinogradConvBackward",
        "BinaryLinearBackward", "ConvolutionBackward0", "AddmmBackward0", "MmBackward0",
    ),
    "pooling, batch norm, Sign": (
        "PoolNormActivation", "PoolNormActivationBackward", "aten::native_batch_norm",
        "NativeBatchNormBackward0", "StraightThrough", "StraightThroughBackward",
        "aten::max_pool2d", "MaxPool2DWithIndicesBackward0",
    ),
    "update": (UPDATE,),
}  # fmt: skip
REST = "the rest"


def step_rooflines() -> list[Competitor]:
    """What a step's parts are made of, at most: as competitors, rates in multiply-accumulates."""
    return [*rooflines(), *lut_sums(), *byte_products(), float_products()]


def roofline_s(
    engine: Engine,
    batch: int,
    timings: dict[Implementation, Timing],
    macs: dict[Implementation, float],
) -> dict[str, float]:
    """Seconds of an engine's parts at the rates measured, by the names of `PARTS`.

    What lies between them (batch norm, Sign, dropout, transforms) counts as nothing. A g_W that the
    engine defers is computed in the update, while memory is read and written: the longer of the
    two.
    """
    rate = {each: macs[each] / t.median_s for each, t in timings.items() if macs[each]}
    by = _by_algorithm(rate)
    copied = 2 * COPIED / timings[COPY].median_s
    sums = gradients = update = 0.0
    for block in engine.network.blocks:
        work, described = batch * block.layer.macs, engine.describe(block)
        sums += work / by[described.product]
        gradients += work / by[described.input_gradient] if block.index else 0.0
        by_memory = UPDATE_BYTES * block.layer.weights / copied
        of_weights = work / by[described.weight_gradient]
        if described.deferred:
            update += max(by_memory, of_weights)
        else:
            gradients += of_weights
            update += by_memory
    return dict(zip(PARTS, (sums, gradients, 0.0, update), strict=True))


def _by_algorithm(rate: dict[Implementation, float]) -> dict[Algorithm, float]:
    """Multiply-accumulates a second at most, of each algorithm that the processor has."""
    float32 = rate[FLOAT_PRODUCTS]
    by_algorithm = {
        Algorithm.float32: float32,
        Algorithm.winograd: 4 * float32,  # 36 products for 144
        Algorithm.popcount: popcount_roofline(rate),
    }
    if LUT_SUMS in rate:
        by_algorithm[Algorithm.lut] = rate[LUT_SUMS]
    if BYTE_PRODUCTS in rate:
        by_algorithm[Algorithm.int16] = rate[BYTE_PRODUCTS] / 2  # a 16-bit number is two bytes
    return by_algorithm


def spent(step: Callable[[], object]) -> dict[str, float]:
    """Seconds of one step's parts, by the names of `PARTS`, and "the rest"; by torch's profiler.

    Of a step that follows others, as in training: the first ones find memory and caches cold.
    """
    for _ in range(2):
        step()
    with _silent(), torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profile:
        began = time.perf_counter()
        step()
        total = time.perf_counter() - began
    seconds = dict.fromkeys(PARTS, 0.0)
    for event in profile.key_averages():
        for part, names in PARTS.items():
            if event.key in names:
                seconds[part] += event.cpu_time_total / 1e6
    return {**seconds, REST: total - sum(seconds.values())}


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing to the terminal from the profiler's library, which logs that there is no GPU."""
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
