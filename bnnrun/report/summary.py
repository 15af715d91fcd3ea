"""`bnnrun summary`: a network's layers and what they cost, from the plan alone."""

import math

from bnnrun import architecture
from bnnrun.architecture import Layer, plan
from bnnrun.config import Binarizer, SummaryConfig, TableFormat
from bnnrun.data import describe
from bnnrun.paper import ENERGY_ACCESS_PJ, ENERGY_OPERATION_PJ
from bnnrun.table import Column, Number, Parts, Value, number, print_table

LAYER_COLUMNS = (
    Column("layer"),
    Column("shape", "kernel inputs outputs height width"),
    Column("weights"),
    Column("real"),
    Column("MACs"),
    Column("bytes, bits", "packed_bytes"),
    Column("bytes, float32", "float32_bytes"),
    Column("c"),
)
ENERGY_COLUMNS = ("energy an image", "accesses or operations", "mJ")
# Of a layer, for programs: 64-bit words of its weights, and what Tables 2 and 3 give for them.
COST_COLUMNS = (
    Column("packed_words"),
    Column("", "packed_dram_low_mj packed_dram_high_mj"),
    Column("float32_words"),
    Column("", "float32_dram_low_mj float32_dram_high_mj"),
    Column("float32_arithmetic_mj"),
)


def summary(config: SummaryConfig) -> None:
    """Print a row a layer, then the energy that the paper's Tables 2 and 3 give for an image.

    As CSV it is one table: the energy stands in columns of each layer, and nothing is summed up.
    """
    layers = plan(config.arch, describe(config.dataset), config.binarization)
    binary = config.binarization.weights is not Binarizer.none
    if config.format is TableFormat.csv:
        rows = [[*_layer_row(layer, binary), *_cost_row(layer, binary)] for layer in layers]
        print_table([*LAYER_COLUMNS, *COST_COLUMNS], rows, format=config.format)
        return
    quantized = architecture.describe(config.binarization)
    print_table(
        LAYER_COLUMNS,
        [*(_layer_row(layer, binary) for layer in layers), _sum_row(layers, binary)],
        title=f"{config.arch.name} for {config.dataset.name}: {quantized}",
        format=config.format,
    )
    print_table(
        ENERGY_COLUMNS,
        _energy_rows(layers),
        title="by the paper's Tables 2 and 3 (45 nm); computed, not measured",
        format=config.format,
    )


def packed_bytes(layer: Layer, binary: bool = True) -> int:
    """Of the weights; a row of a bit plane is padded to whole 32-bit words, as in a packed file."""
    plane = layer.outputs * math.ceil(layer.k / 32) * 4
    return layer.weight_bits * plane if binary else 4 * layer.weights


def words(weights: int, bits: int) -> int:
    """Accesses to 64 bits that read each weight once."""
    return math.ceil(weights * bits / 64)


def dram_mj(accesses: int) -> Parts:
    """Energy of accesses to DRAM, from and to."""
    low, high = (accesses * energy / 1e9 for energy in ENERGY_ACCESS_PJ["DRAM"])
    return Parts(f"{low:.3g} to {high:.3g}", (low, high))


def arithmetic_mj(macs: int) -> Number:
    """Energy of the arithmetic in float32.

    The tables have no XNOR: what a binary MAC costs cannot be computed from them.
    """
    return Number(macs * sum(ENERGY_OPERATION_PJ["32-bit float"]) / 1e9, "{:.3g}")


def _counts(layer: Layer, binary: bool) -> tuple[int, ...]:
    """Real parameters are gamma and beta; there are no biases."""
    return (layer.weights, layer.norm_parameters, layer.macs, packed_bytes(layer, binary),
            4 * layer.weights)  # fmt: skip


def _layer_row(layer: Layer, binary: bool) -> list[Value]:
    text, sizes = f"{layer.inputs} -> {layer.outputs}", (layer.inputs, layer.outputs)
    shape = Parts(text, (None, *sizes))
    if layer.is_conv:
        (height, width), kernel = layer.size, layer.kernel
        shape = Parts(f"{kernel}x{kernel}x{text}, {height}x{width}",
                      (kernel, *sizes, height, width))  # fmt: skip
    c = number(layer.c if binary else None, "{:.2f}")
    return [layer.name, shape, *map(Number, _counts(layer, binary)), c]


def _sum_row(layers: list[Layer], binary: bool) -> list[Value]:
    columns = zip(*(_counts(layer, binary) for layer in layers), strict=True)
    return ["sum", "", *(Number(sum(column)) for column in columns), ""]


def _cost_row(layer: Layer, binary: bool) -> list[Value]:
    row: list[Value] = []
    for bits in (layer.weight_bits if binary else 32, 32):
        accesses = words(layer.weights, bits)
        row += [Number(accesses), dram_mj(accesses)]
    return [*row, arithmetic_mj(layer.macs)]


def _energy_rows(layers: list[Layer]) -> list[list[Value]]:
    """Energy of reading each weight once from DRAM, and of the arithmetic."""
    weights, macs = sum(layer.weights for layer in layers), sum(layer.macs for layer in layers)
    bits = sum(layer.weights * layer.weight_bits for layer in layers)
    rows: list[list[Value]] = []
    for name, count in (("weights from DRAM, float32", 32 * weights),
                        ("weights from DRAM, bits", bits)):  # fmt: skip
        accesses = words(count, 1)
        rows.append([name, Number(accesses), dram_mj(accesses)])
    return [*rows, ["multiply and add, float32", Number(macs), arithmetic_mj(macs)]]
