"""C99 of a packed network: a header, a source file and a test; or an Arduino library of them."""

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import ExportLayout
from bnnrun.export.c import source as c
from bnnrun.export.c.arduino import library
from bnnrun.export.c.compiled_size import compiled_sizes
from bnnrun.export.c.memory import Cost, cost, layer_cost
from bnnrun.export.c.scores import integer_scores
from bnnrun.export.c.tables import tables
from bnnrun.export.export import Exported, Source
from bnnrun.export.names import check_identifier
from bnnrun.runtime.model import PackedModel
from bnnrun.runtime.reference import ReferenceNetwork

REPORT_BITS = 32  # of the words that the report counts with
RANDOM_IMAGES = 3  # of the test, after one of zeros and one of the largest pixels


def export_c(exported: Source, layout: ExportLayout) -> Exported:
    """The C files of a packed network, the same bytes for the same model and name.

    Raises:
        InputError: the name is no C identifier, or no integers order the scores
    """
    name, model = exported.name, exported.model
    check_identifier(name)
    network = c.Network(name, model, tables(model), integer_scores(model.layers[-1]))
    columns, rows = report(network)
    about = c.about(name, model.source, exported.sha256, [columns, *rows])
    header, source = c.header(network, about), c.source(network, about)
    contents = {
        f"{name}.h": header,
        f"{name}.c": source,
        f"{name}_test.c": c.test(name, *_vectors(model)),
    }
    if layout is ExportLayout.arduino:
        contents = library(name, contents)
    files = {path: text.encode() for path, text in contents.items()}
    return Exported(files, (columns, rows), tuple(compiled_sizes(header, source, name)))


def report(network: c.Network) -> tuple[list[str], list[list[str]]]:
    """(columns, rows): flash and scratch bytes, and operations, by layer, of words of 32 bits."""
    columns = ["layer", "inputs", "outputs", "flash, bytes", "scratch, bytes", "XOR + popcount"]
    rows, memory_args = [], (network.layers, network.scores, REPORT_BITS)
    for layer in network.layers:
        shape = layer.shape
        inputs = _size(shape.inputs, shape.is_conv, shape.size)
        outputs = _size(shape.outputs, shape.is_conv, shape.pooled)
        rows.append([layer.name, inputs, outputs, *_numbers(layer_cost(layer, *memory_args))])
    return columns, [*rows, ["all", "", "", *_numbers(cost(*memory_args))]]


def _size(channels: int, is_map: bool, size: tuple[int, int]) -> str:
    return f"{channels}x{size[0]}x{size[1]}" if is_map else f"{channels}"


def _numbers(cost: Cost) -> list[str]:
    return [f"{cost.flash:,}", f"{cost.scratch:,}", f"{cost.operations:,}"]


def _vectors(
    model: PackedModel,
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.intp]]:
    """(images, sums, classes) of the test, by the reference implementation."""
    shape, largest = model.spec.image_shape, model.spec.max_pixel
    random = np.random.default_rng(0).integers(0, largest + 1, (RANDOM_IMAGES, *shape))
    images = np.concatenate([np.zeros((1, *shape)), np.full((1, *shape), largest), random])
    pixels = images.astype(np.uint8)
    sums = ReferenceNetwork(model).accumulators(pixels)
    return pixels, sums, model.layers[-1].scores(sums).argmax(axis=1)
