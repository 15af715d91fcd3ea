"""`bnnrun filters`: how many 3x3 binary filters differ (filter repetitions; Figure 2)."""

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bnnrun.config import FiltersConfig, computed
from bnnrun.errors import InputError
from bnnrun.files import write_atomically
from bnnrun.gemm.bits import unpack_bits
from bnnrun.records import Record, Run
from bnnrun.report.content import Filters
from bnnrun.runtime import file
from bnnrun.runtime.model import PackedLayer
from bnnrun.table import print_table

PATTERNS = 2**8  # 3x3 filters of ±1, a filter and its negative being one
CELL, GAP, ACROSS = 8, 6, 16  # pixels of a weight, pixels between filters, filters in a row


def filters(config: FiltersConfig, run: Run) -> list[Record]:
    """Print the table, draw the first layer's filters; one record, the mean over the layers."""
    path = file.find(config.model)
    model = file.load(path)
    layers = [layer for layer in model.layers if layer.shape.is_conv]
    if not layers:
        raise InputError(f"{path}: no convolution in it, so no 3x3 filters; expected a ConvNet")
    for shape in (layer.shape for layer in layers):
        if shape.weight_bits != 1:
            raise InputError(
                f"{path}: {shape.name} has weights of {shape.weight_bits} bits; only "
                "filters of one bit are compared"
            )
    unique = [unique_filters(layer) for layer in layers]
    chance = [expected_share(layer.shape.outputs) for layer in layers]
    rows = [
        [layer.shape.name, f"{layer.shape.inputs} -> {layer.shape.outputs}",
         f"{100 * share:.1f}", f"{100 * by_chance:.1f}", f"{100 * (1 - share):.1f}",
         f"{1 / share:.2f}"]
        for layer, share, by_chance in zip(layers, unique, chance, strict=True)
    ]  # fmt: skip
    means = {"conv1 to last": slice(None), "conv2 to last": slice(1, None)}
    for name, part in means.items():
        if unique[part]:
            share, by_chance = float(np.mean(unique[part])), float(np.mean(chance[part]))
            rows.append([f"mean, {name}", "", f"{100 * share:.1f}", f"{100 * by_chance:.1f}",
                         f"{100 * (1 - share):.1f}", f"{1 / share:.2f}"])  # fmt: skip
    columns = ["layer", "maps", "unique %", "by chance %", "work saved %", "times less"]
    print_table(columns, rows, title=f"{path}: unique 3x3 filters of each input map")
    picture = run.folder / "filters.png"
    write_atomically(picture, lambda file: draw(packed_filters(layers[0])).save(file, "PNG"))
    print(f"{layers[0].shape.name}, first {min(256, layers[0].shape.outputs)} filters: {picture}")
    hidden = unique[1:] or unique
    return [
        Record(
            experiment=run.experiment,
            cell="",
            quantity="unique_filters",
            value=100 * float(np.mean(hidden)),
            unit="%",
            seed=int(model.source.get("seed", 0)),
            device="cpu",
            details={
                "definition": "different 3x3 filters of an input map, a filter and its negative "
                "being one, over the number of output maps; mean over input maps, then layers, "
                "from the second convolution on",
                "layers": {
                    layer.shape.name: {"unique_pct": 100 * share, "by_chance_pct": 100 * by_chance}
                    for layer, share, by_chance in zip(layers, unique, chance, strict=True)
                },
                "by_chance_pct": 100 * float(np.mean(chance[1:] or chance)),
                "first_layer": asdict(packed_filters(layers[0])),
                "trained": model.source,
                "sha256": file.sha256(path),
            },
            config={**computed(config), "dataset": {"name": model.source.get("dataset", "")}},
            command=run.command,
        )
    ]


def unique_filters(layer: PackedLayer) -> float:
    """Share of an input map's filters that differ, a filter and its negative being one.

    Only filters that read the same map can share work. Mean over the input maps.
    """
    w = unpack_bits(layer.weight[0], layer.shape.k).reshape(layer.shape.outputs, 9, -1)
    codes = np.tensordot(w, 1 << np.arange(9), axes=(1, 0))  # (outputs, inputs)
    codes = np.minimum(codes, 511 - codes)
    maps = codes.shape[1]
    return float(np.mean([len(np.unique(codes[:, i])) for i in range(maps)])) / len(codes)


def expected_share(outputs: int) -> float:
    """The same of random weights: the expected number of different ones among `outputs` samples."""
    return PATTERNS * (1 - (1 - 1 / PATTERNS) ** outputs) / outputs


def packed_filters(layer: PackedLayer) -> Filters:
    """The layer's filters as a record keeps them."""
    bits = layer.weight[0].astype("<u4").tobytes().hex()
    return Filters(layer.shape.outputs, layer.shape.inputs, bits)


def bits_of(filters: Filters) -> NDArray[np.uint8]:
    """The filters' bits, (outputs, 3, 3, channels); ValueError where there are more or fewer."""
    words = np.frombuffer(bytes.fromhex(filters.bits), "<u4").reshape(filters.outputs, -1)
    bits = unpack_bits(words, 9 * filters.channels)
    return bits.reshape(filters.outputs, 3, 3, filters.channels)


def draw(filters: Filters) -> Image.Image:
    """The first 256 filters, +1 white, -1 black; of three input maps as red, green and blue."""
    w = bits_of(filters)[:256]
    shown = w if filters.channels == 3 else w[..., :1].repeat(3, axis=3)
    side = 3 * CELL + GAP
    rows = -(-len(shown) // ACROSS)
    canvas: NDArray[np.uint8] = np.full((rows * side + GAP, ACROSS * side + GAP, 3), 128, np.uint8)
    for i, pattern in enumerate(shown):
        y, x = GAP + i // ACROSS * side, GAP + i % ACROSS * side
        cells = (255 * pattern).repeat(CELL, axis=0).repeat(CELL, axis=1)
        canvas[y : y + 3 * CELL, x : x + 3 * CELL] = cells
    return Image.fromarray(canvas)
