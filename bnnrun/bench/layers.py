"""The layers of a packed network on the processor, each against the roofline of its operations.

The rooflines are measured in turns with the layers: of a popcount product as in roofline.py, of a
first layer by bytes the products of bytes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.architecture import Layer
from bnnrun.bench.measure import Competitor, measure
from bnnrun.bench.roofline import BYTE_PRODUCTS, byte_products, popcount_roofline, rooflines
from bnnrun.roles import Implementation, Role
from bnnrun.runtime.network import PackedNetwork, Step
from bnnrun.table import print_table


def layers(
    network: PackedNetwork, pixels: NDArray[np.uint8], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Time the layers of a network on at most `chunk` of the images; print a table.

    Returns, for a record, of each layer: its name, milliseconds, those of its roofline, and the
    number of images. The pixels' way to the first layer has no roofline.
    """
    part = pixels[: network.chunk]
    calls = network.layer_calls(part)
    check = partial(_check, network, part, calls)
    timed = [
        Competitor(Implementation.of(Role.ours, f"layer_{i}"), call, check)
        for i, call in enumerate(calls)
    ]
    roofs = [*rooflines(), *byte_products()]
    timings = measure([*timed, *roofs], rounds, seconds)
    rate = {
        each.implementation: each.macs / timings[each.implementation].median_s
        for each in roofs
        if each.macs
    }
    at_roofline = [0.0, *(_roofline_s(step, len(part), rate) for step in network.steps)]
    names = ["pixels", *(_name(step.shape) for step in network.steps)]
    parts = [
        {
            "layer": name,
            "ms": 1e3 * timings[each.implementation].median_s,
            "ms_at_limit": 1e3 * least or None,
            "images": len(part),
        }
        for name, each, least in zip(names, timed, at_roofline, strict=True)
    ]
    _print(parts)
    return parts


def _check(
    network: PackedNetwork, pixels: NDArray[np.uint8], calls: Sequence[Callable[[], Any]]
) -> str | None:
    """Whether the parts, called in turn, lead to the network's scores."""
    *_, accumulators = [call() for call in calls]
    scores = network.model.layers[-1].scores(accumulators)
    same = np.array_equal(scores, network.scores(pixels))
    return None if same else "the layers one by one give other scores than the network"


def _roofline_s(step: Step, images: int, rate: dict[Implementation, float]) -> float:
    """Seconds of a layer at the roofline of its products; 0 where that was not measured."""
    panels, macs = step.weights.panels, float(images * step.shape.macs)
    if panels.of_bytes:
        return macs / rate[BYTE_PRODUCTS] if BYTE_PRODUCTS in rate else 0.0
    return macs * panels.planes * panels.weight_planes / popcount_roofline(rate)


def _name(shape: Layer) -> str:
    """'conv2, 128 to 128, 32x32, pooled'."""
    size = f", {shape.size[0]}x{shape.size[1]}" if shape.is_conv else ""
    return f"{shape.name}, {shape.inputs} to {shape.outputs}{size}{', pooled' * shape.pool}"


def _print(parts: Sequence[dict[str, Any]]) -> None:
    total = sum(each["ms"] for each in parts)
    rows = [
        [
            each["layer"],
            f"{each['ms']:.3f}",
            f"{100 * each['ms'] / total:.1f} %",
            f"{each['ms_at_limit']:.3f}" if each["ms_at_limit"] else "",
            f"{100 * each['ms_at_limit'] / each['ms']:.1f} %" if each["ms_at_limit"] else "",
        ]
        for each in parts
    ]
    print_table(
        ["layer", "median ms", "of all", "ms at the roofline", "of the roofline"],
        rows,
        title=f"the packed network layer by layer, {parts[0]['images']:,} images",
    )
