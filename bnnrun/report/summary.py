"""`bnnrun summary`: a network's layers and what they cost, from the plan alone."""

import math

from bnnrun.architecture import Layer, plan
from bnnrun.config import Binarizer, SummaryConfig
from bnnrun.data import describe
from bnnrun.paper import ENERGY_ACCESS_PJ, ENERGY_OPERATION_PJ
from bnnrun.table import print_table

LAYER_COLUMNS = ["layer", "shape", "weights", "real", "MACs", "bytes, bits", "bytes, float32", "c"]
ENERGY_COLUMNS = ["energy an image", "accesses or operations", "mJ"]


def summary(config: SummaryConfig) -> None:
    """Print a row a layer, then the energy that the paper's Tables 2 and 3 give for an image."""
    layers = plan(config.arch, describe(config.dataset))
    binary = config.binarization.weights is not Binarizer.none
    print_table(
        LAYER_COLUMNS,
        layer_rows(layers, binary),
        title=f"{config.arch.name} for {config.dataset.name}: "
        f"weights {config.binarization.weights.value}, "
        f"activations {config.binarization.activations.value}",
        format=config.format,
    )
    print_table(
        ENERGY_COLUMNS,
        energy_rows(layers),
        title="by the paper's Tables 2 and 3 (45 nm); computed, not measured",
        format=config.format,
    )


def layer_rows(layers: list[Layer], binary: bool) -> list[list[str]]:
    """Counts of each layer and their sums. Real parameters are gamma and beta; there are no biases.

    A row of bits is padded to whole 32-bit words, as in a packed file.
    """
    rows, total = [], [0] * 5
    for layer in layers:
        packed = layer.outputs * math.ceil(layer.k / 32) * 4 if binary else 4 * layer.weights
        counts = [layer.weights, layer.norm_parameters, layer.macs, packed, 4 * layer.weights]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        at = f", {layer.size[0]}x{layer.size[1]}" if layer.is_conv else ""
        kernel = f"{layer.kernel}x{layer.kernel}x" if layer.is_conv else ""
        rows.append(
            [layer.name, f"{kernel}{layer.inputs} -> {layer.outputs}{at}",
             *(f"{n:,}" for n in counts), f"{layer.c:.2f}" if binary else ""]
        )  # fmt: skip
    return [*rows, ["sum", "", *(f"{n:,}" for n in total), ""]]


def energy_rows(layers: list[Layer]) -> list[list[str]]:
    """Energy of reading each weight once from DRAM, and of the arithmetic in float32.

    The tables have no XNOR: what a binary MAC costs cannot be computed from them.
    """
    weights, macs = sum(layer.weights for layer in layers), sum(layer.macs for layer in layers)
    low, high = ENERGY_ACCESS_PJ["DRAM"]
    rows = []
    for name, bits in (("weights from DRAM, float32", 32), ("weights from DRAM, bits", 1)):
        accesses = math.ceil(weights * bits / 64)
        rows.append(
            [name, f"{accesses:,}", f"{accesses * low / 1e9:.3g} to {accesses * high / 1e9:.3g}"]
        )
    operation = sum(ENERGY_OPERATION_PJ["32-bit float"])
    return [*rows, ["multiply and add, float32", f"{macs:,}", f"{macs * operation / 1e9:.3g}"]]
