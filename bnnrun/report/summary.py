"""`bnnrun summary`: a network's layers and what they cost, from the plan alone."""

import math

from bnnrun.architecture import plan
from bnnrun.config import Binarizer, SummaryConfig
from bnnrun.data import describe
from bnnrun.table import print_table


def summary(config: SummaryConfig) -> None:
    """Print a row a layer: shape, weights, real parameters, MACs, bytes packed and as float32."""
    kind = describe(config.dataset)
    layers = plan(config.arch, kind)
    binary = config.binarization.weights is not Binarizer.none
    columns = ["layer", "shape", "weights", "real", "MACs", "bytes, bits", "bytes, float32", "c"]
    rows, total = [], [0] * 5
    for layer in layers:
        # A row of bits is padded to whole 32-bit words.
        packed = layer.outputs * math.ceil(layer.k / 32) * 4 if binary else 4 * layer.weights
        counts = [layer.weights, layer.norm_parameters, layer.macs, packed, 4 * layer.weights]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        rows.append(
            [layer.name, f"{layer.inputs} x {layer.outputs}", *(f"{n:,}" for n in counts),
             f"{layer.c:.2f}" if binary else ""]
        )  # fmt: skip
    rows.append(["sum", "", *(f"{n:,}" for n in total), ""])
    print_table(
        columns,
        rows,
        title=f"{config.arch.name} for {config.dataset.name}: "
        f"weights {config.binarization.weights.value}, "
        f"activations {config.binarization.activations.value}",
        format=config.format,
    )
