"""A training step's floor: its operations and its bytes, each at the most this machine does.

Loops in registers as in limits.py, checked by definition, measured in turns with the steps. What a
layer's products are counted at is what the engine describes itself as doing them by.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity

from bnnrun.bench.limits import (
    COPIED,
    COPY,
    limit,
    limits,
    sum_byte_products,
    sum_choices,
)
from bnnrun.bench.measure import Competitor, Timing
from bnnrun.gemm.bits import LANES
from bnnrun.gemm.compiled import thread_count
from bnnrun.gemm.lut_gemm import HAS_LUT
from bnnrun.gemm.vector import HAS_BYTE_PRODUCT
from bnnrun.nn.engine import UPDATE, Algorithm, Engine
from bnnrun.roles import Implementation, Role

TABLES = Implementation(Role.roofline, "lut_sums")
BYTES = Implementation(Role.roofline, "byte_products")
FLOATS = Implementation(Role.roofline, "float32_product")
CHAINS, ROUNDS = 12, 1_000_000
SIZE = 1536  # of the float32 product
OF_AN_INSTRUCTION = 4 * LANES  # multiply-accumulates that a choice, or one on bytes, stands for
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


def _in_registers(
    implementation: Implementation,
    loop: Callable[..., None],
    words: tuple[NDArray[Any], NDArray[Any]],
    starts: NDArray[Any],
    added: NDArray[Any],
) -> Competitor:
    """A loop, checked by what each of its four kinds of rounds adds: `added` (4, 12, 16)."""
    threads = thread_count()
    out = np.empty((threads, *starts.shape), starts.dtype)
    together = np.concatenate([array.ravel().view(np.int32) for array in words])
    flat = [array.ravel() for array in (together, starts, out)]

    def check() -> str | None:
        for rounds in (0, 1, 7):
            loop(threads, rounds, *flat)
            expected = starts + sum(added[r % 4] for r in range(rounds))
            if (out != expected).any():
                return f"after {rounds} rounds the registers do not hold what was added"
        return None

    macs = float(CHAINS * OF_AN_INSTRUCTION * threads) * ROUNDS
    return Competitor(implementation, lambda: loop(threads, ROUNDS, *flat), check, macs=macs)


def rates() -> list[Competitor]:
    """What a step's parts are made of, at most: as competitors, rates in multiply-accumulates."""
    rng = np.random.default_rng(0)
    competitors = limits()
    indices = rng.integers(0, 16, (4, CHAINS, LANES), dtype=np.int32)
    if HAS_LUT:
        table = rng.integers(-9, 9, LANES).astype(np.float32)
        starts = rng.integers(-9, 9, (CHAINS, LANES)).astype(np.float32)
        chosen = table[indices]
        competitors.append(_in_registers(TABLES, sum_choices, (table, indices), starts, chosen))
    if HAS_BYTE_PRODUCT:
        a = rng.integers(0, 256, (LANES, 4), dtype=np.uint8)
        w = rng.integers(-128, 128, (4, CHAINS, LANES, 4), dtype=np.int8)
        added = (a.astype(np.int32) * w).sum(-1, dtype=np.int32)
        first = rng.integers(-9, 9, (CHAINS, LANES), dtype=np.int32)
        competitors.append(_in_registers(BYTES, sum_byte_products, (a, w), first, added))
    x, y = torch.randn(2, SIZE, SIZE)
    out = torch.empty(SIZE, SIZE)
    product = partial(torch.mm, x, y, out=out)

    def check() -> str | None:
        product()
        exact = x.double() @ y.double()
        return None if (out - exact).norm() < 1e-5 * exact.norm() else "the product is off"

    return [*competitors, Competitor(FLOATS, product, check, macs=float(SIZE) ** 3)]


def floor(
    engine: Engine,
    batch: int,
    timings: dict[Implementation, Timing],
    macs: dict[Implementation, float],
) -> dict[str, float]:
    """Seconds of an engine's parts at the rates measured, by the names of `PARTS`.

    What lies between them (batch norm, Sign, dropout, transforms) counts as nothing. g_W of a fully
    connected layer is made in the update, while memory is read and written: the longer of the two.
    """
    rate = {each: macs[each] / t.median_s for each, t in timings.items() if macs[each]}
    by = _rates(rate)
    copied = 2 * COPIED / timings[COPY].median_s
    sums = gradients = update = 0.0
    for block in engine.network.blocks:
        work, described = batch * block.layer.macs, engine.describe(block)
        sums += work / by[described.product]
        gradients += work / by[described.input_gradient] if block.index else 0.0
        by_memory = UPDATE_BYTES * block.layer.weights / copied
        of_weights = work / by[described.weight_gradient]
        if block.layer.is_conv:
            gradients += of_weights
            update += by_memory
        else:
            update += max(by_memory, of_weights)
    return dict(zip(PARTS, (sums, gradients, 0.0, update), strict=True))


def _rates(rate: dict[Implementation, float]) -> dict[Algorithm, float]:
    """Multiply-accumulates a second at most, of each algorithm that the processor has."""
    floats = rate[FLOATS]
    by_algorithm = {
        Algorithm.float32: floats,
        Algorithm.winograd: 4 * floats,  # 36 products for 144
        Algorithm.popcount: limit(rate),
    }
    if TABLES in rate:
        by_algorithm[Algorithm.lut] = rate[TABLES]
    if BYTES in rate:
        by_algorithm[Algorithm.int16] = rate[BYTES] / 2  # a 16-bit number is two bytes
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
