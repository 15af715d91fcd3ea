"""A packed network at full speed: bits from layer to layer, memory planned once.

Weights are laid out for the kernels when the network is made; where gamma < 0 they are negated,
so that every comparison is s >= t. Buffers for a chunk of images are made then too, and every
batch goes through them.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numba
import numpy as np
from numpy.typing import NDArray

from bnnrun.architecture import Layer
from bnnrun.config import FirstLayer
from bnnrun.gemm import cpu
from bnnrun.gemm.bits import LANES, Words, aligned, pack, to_panels, unpack_bits, words
from bnnrun.gemm.conv import conv_bits
from bnnrun.gemm.vector import HAS_BYTE_PRODUCT
from bnnrun.gemm.xnor import padded_rows, row_words, tasks
from bnnrun.runtime.counts import count_limits, signed_weights
from bnnrun.runtime.model import PackedLayer, PackedModel, borders

MEMORY = 4 * 2**20  # bytes of the largest layer's bits for a chunk: what a third-level cache holds
CHUNK = 1024  # images, at most


@dataclass(frozen=True)
class _Weights:
    """A layer's weights as the kernels read them, and what counts are compared with.

    Attributes:
        panels: (P, kw, 16) uint32
        way:    of cpu.py
        planes: bit planes of the input, 0 where it is bits or bytes
        limits: (borders, 16 P) int32; base of the sums in the output layer
        flips:  (P,) uint16
    """

    panels: Words
    way: int
    planes: int
    limits: NDArray[np.int32]
    flips: NDArray[np.uint16]

    @property
    def kw(self) -> int:
        return int(self.panels.shape[1])


class PackedNetwork:
    """Runs a packed model on the processor.

    Attributes:
        chunk:  images that go through the layers together
        hidden: the bits of each hidden layer of the latest chunk, (n, N) or (n, height, width, N)
    """

    def __init__(self, model: PackedModel, first: FirstLayer = FirstLayer.auto) -> None:
        self.model = model
        if first is FirstLayer.auto:
            first = FirstLayer.bytes if HAS_BYTE_PRODUCT else FirstLayer.planes
        self.first = first
        # Bytes of an image's bits in the widest layer, or of its pixels.
        largest = max(
            math.prod(model.kind.image_shape),
            *(layer.shape.activations // 8 for layer in model.layers[:-1]),
        )
        self.chunk = int(np.clip(MEMORY // max(1, largest), 1, CHUNK))
        self.count = 0
        self.steps: list[_Step] = []
        behind: Layer | None = None
        for layer in model.layers:
            levels = model.kind.levels if behind is None else 0
            make: type[_Step] = _Conv if layer.shape.is_conv else _Dense
            self.steps.append(make(layer, levels, first, padded_rows(self.chunk), behind))
            behind = layer.shape

    def scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Scores of images, in whatever number.

        Shapes:
            pixels:  (n, channels, height, width) uint8
            returns  (n, classes) float64
        """
        out = np.empty((len(pixels), len(self.model.kind.classes)))
        for start in range(0, len(pixels), self.chunk):
            part = pixels[start : start + self.chunk]
            self.count = len(part)
            self.steps[0].enter(part)
            for step, following in pairwise(self.steps):
                step.run(self.count, following)
            sums = cast(_Dense, self.steps[-1]).sums(self.count)
            out[start : start + len(part)] = self.model.layers[-1].scores(sums)
        return out

    @property
    def hidden(self) -> list[NDArray[np.bool_]]:
        """Unpacked from where they lie."""
        return [b.read(self.count, a.shape) for a, b in pairwise(self.steps)]


def _weights(layer: PackedLayer, levels: int, first: FirstLayer, channels: int) -> _Weights:
    """Lay out the weights of a layer.

    Args:
        levels:   largest pixel value in the first layer, else 0
        channels: bits of a pixel of the input, each pixel's beginning with a word of its own;
                  0 where the whole row is one piece
    """
    shape, k = layer.shape, layer.shape.k
    w = signed_weights(layer)
    of_bytes = levels > 0 and first is FirstLayer.bytes
    panels = _byte_panels(w) if of_bytes else _bit_panels(w, channels or k)
    planes = 0 if of_bytes else int(levels).bit_length()
    limits = np.full((1, panels.shape[0] * LANES), -1, np.int32)
    if shape.last:
        limits[:, : shape.outputs] = k
    else:
        values = count_limits(layer, w, levels > 0, planes)
        limits = np.repeat(limits, len(values), axis=0)
        limits[:, : shape.outputs] = values
    flips = np.zeros(panels.shape[0] * LANES, bool)
    flips[: shape.outputs] = layer.flip
    way = cpu.BYTES if of_bytes else cpu.BITS
    half_words = pack(flips).view(np.uint16)[: panels.shape[0]]
    return _Weights(panels, way, planes, limits, half_words)


def _bit_panels(w: NDArray[np.int8], group: int) -> Words:
    pieces = pack(w.reshape(len(w), -1, group))
    rows = pieces.reshape(len(w), -1)
    return to_panels(rows, row_words(32 * rows.shape[1]))


def _byte_panels(w: NDArray[np.int8]) -> Words:
    rows = np.zeros((len(w), -(-w.shape[1] // 4) * 4), np.int8)
    rows[:, : w.shape[1]] = -w
    return to_panels(rows.view(np.uint32), rows.shape[1] // 4)


class _Step(ABC):
    """A layer and the memory it reads; the layer in front writes there.

    Attributes:
        input: the rows, or padded images, of a chunk
    """

    shape: Layer
    weights: _Weights
    input: NDArray[Any]

    @abstractmethod
    def __init__(
        self, layer: PackedLayer, levels: int, first: FirstLayer, of: int, behind: Layer | None
    ) -> None: ...

    @abstractmethod
    def enter(self, pixels: NDArray[np.uint8]) -> None:
        """Take up the pixels of a chunk, as the first layer."""

    @abstractmethod
    def run(self, count: int, following: "_Step") -> None:
        """Write the bits of `count` images to the layer that follows."""

    @abstractmethod
    def target(
        self, y: NDArray[np.intp], x: NDArray[np.intp], width: int, cells: int
    ) -> NDArray[np.intp]:
        """Where a convolution in front puts the bits of pixel (y, x): `cells` pieces of 16."""

    @abstractmethod
    def read(self, count: int, behind: Layer) -> NDArray[np.bool_]:
        """The bits that layer `behind` wrote here."""


class _Dense(_Step):
    """A fully connected layer and the rows it reads: bits, or pixels as bytes or bit planes."""

    def __init__(
        self, layer: PackedLayer, levels: int, first: FirstLayer, of: int, behind: Layer | None
    ) -> None:
        self.shape = layer.shape
        channels = behind.outputs if behind is not None and behind.is_conv else 0
        self.weights = _weights(layer, levels, first, channels)
        self.planes = self.weights.planes
        self.row = self.weights.kw * max(1, self.planes)
        self.input = aligned((of, self.row), np.uint32)

    def enter(self, pixels: NDArray[np.uint8]) -> None:
        flat = np.ascontiguousarray(pixels.reshape(len(pixels), -1))
        if self.planes:
            m, k = flat.shape
            cpu.planes_of(flat.ravel(), m, k, self.input.ravel(), self.weights.kw, self.planes)
        else:
            self.input.view(np.uint8)[: len(flat), : flat.shape[1]] = flat

    def run(self, count: int, following: _Step) -> None:
        w, rows = self.weights, padded_rows(count)
        panels = tasks(rows, len(w.panels))
        given = (self.input.ravel(), self.row, rows, w.panels.ravel(), w.kw, w.way, w.planes)
        out = following.input.view(np.uint16)
        cpu.dense_bits(*given, panels, w.limits.ravel(), out.ravel(), out.shape[1])

    def sums(self, count: int) -> NDArray[np.int32]:
        """(count, N) sums, of the output layer."""
        w, rows = self.weights, padded_rows(count)
        out = np.empty((rows, w.limits.shape[1]), np.int32)
        panels = tasks(rows, len(w.panels))
        given = (self.input.ravel(), self.row, rows, w.panels.ravel(), w.kw, w.way, w.planes)
        cpu.dense(*given, panels, w.limits[0], out.ravel(), out.shape[1])
        return out[:count, : self.shape.outputs]

    def target(
        self, y: NDArray[np.intp], x: NDArray[np.intp], width: int, cells: int
    ) -> NDArray[np.intp]:
        return (y * width + x) * cells

    def read(self, count: int, behind: Layer) -> NDArray[np.bool_]:
        rows = self.input[:count]
        if not behind.is_conv:
            return unpack_bits(rows, behind.outputs).astype(bool)
        height, width = behind.pooled
        cells = words(behind.outputs)
        image = rows[:, : height * width * cells].reshape(count, height, width, cells)
        return unpack_bits(image, behind.outputs).astype(bool)


class _Conv(_Step):
    """A 3x3 convolution and the padded images it reads: words of bits, or pixels as bytes."""

    def __init__(
        self, layer: PackedLayer, levels: int, first: FirstLayer, of: int, behind: Layer | None
    ) -> None:
        shape = self.shape = layer.shape
        self.weights = _weights(layer, levels, first, 0 if levels else shape.inputs)
        height, width = shape.size
        self.cells = shape.inputs if levels else words(shape.inputs)
        kind = np.uint8 if levels else np.uint32
        self.input = aligned((of, height + 2, width + 2, self.cells), kind)
        self.line, self.run_length = (width + 2) * self.cells, 3 * self.cells
        y, x = _order(shape)
        self.origins = ((y * (width + 2) + x) * self.cells).astype(np.int32)
        classes, _ = borders(height, width)
        used = classes if len(self.weights.limits) > 1 else np.zeros_like(classes)
        self.borders = used[y, x].astype(np.int32)
        self.y, self.x = (y // 2, x // 2) if shape.pool else (y, x)

    def enter(self, pixels: NDArray[np.uint8]) -> None:
        self.input[: len(pixels), 1:-1, 1:-1] = pixels.transpose(0, 2, 3, 1)

    def run(self, count: int, following: _Step) -> None:
        w = self.weights
        cells = 2 * words(self.shape.outputs)
        targets = following.target(self.y, self.x, self.shape.pooled[1], cells).astype(np.int32)
        out = following.input.reshape(len(following.input), -1).view(np.uint16)
        bands = max(1, -(-4 * numba.get_num_threads() // count))
        rows = min(cpu.BAND, -(-len(self.origins) // bands // cpu.TILE) * cpu.TILE)
        conv_bits(
            self.input.ravel(), count, self.input[0].size, self.origins, self.line,
            self.run_length, w.panels.ravel(), w.kw, w.way, w.planes, w.limits.ravel(),
            self.borders, self.shape.pool, w.flips, out.ravel(), out.shape[1], targets, rows,
        )  # fmt: skip

    def target(
        self, y: NDArray[np.intp], x: NDArray[np.intp], width: int, cells: int
    ) -> NDArray[np.intp]:
        return ((y + 1) * (width + 2) + x + 1) * cells

    def read(self, count: int, behind: Layer) -> NDArray[np.bool_]:
        return unpack_bits(self.input[:count, 1:-1, 1:-1], behind.outputs).astype(bool)


def _order(shape: Layer) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(y, x) of the rows of an image's table, windows of the pooling one after the other.

    The last is repeated up to a multiple of TILE.
    """
    height, width = shape.size
    if shape.pool:
        at = np.indices((height // 2, width // 2, 2, 2))
        y, x = (2 * at[0] + at[2]).ravel(), (2 * at[1] + at[3]).ravel()
    else:
        y, x = (part.ravel() for part in np.indices((height, width)))
    more = padded_rows(len(y)) - len(y)
    return np.pad(y, (0, more), "edge"), np.pad(x, (0, more), "edge")
