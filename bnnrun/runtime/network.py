"""A packed network on the processor: bits from layer to layer, in buffers that are reused.

The constructor lays out the weights for the kernels; where gamma < 0 it negates them, so that every
comparison is s >= t. A set of buffers holds a chunk of images. Each call takes a set from a pool
and puts it back, so that threads can share a network.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bnnrun.architecture import Layer
from bnnrun.config import FirstLayer
from bnnrun.gemm import cpu, tiles, xnor
from bnnrun.gemm.bits import LANES, Words, aligned, pack, to_panels, unpack_bits, words
from bnnrun.gemm.compiled import number_of_threads, set_threads, thread_count
from bnnrun.gemm.conv import conv_bits
from bnnrun.gemm.instructions import HAS_FAST_BYTES
from bnnrun.gemm.xnor import Panels, padded_rows
from bnnrun.runtime.model import PackedLayer, PackedModel, borders
from bnnrun.runtime.thresholds import accumulator_thresholds, signed_weights, weight_planes

CHUNK_BYTES = 4 * 2**20  # the widest layer's bits for a chunk: they fit a third-level cache
MAX_CHUNK = 1024  # images of a chunk


@dataclass(frozen=True)
class _Weights:
    """A layer's weights in the layout of the kernels, and its thresholds.

    Attributes:
        panels:     P panels of sixteen columns
        thresholds: (2^bits - 1, border classes, 16 P) int32; in the output layer the base of
                    `xnor.multiply`
        flips:      (P,) uint16, a bit a column
    """

    panels: Panels
    thresholds: NDArray[np.int32]
    flips: NDArray[np.uint16]


class PackedNetwork:
    """Runs a packed model on the processor; safe to call from any thread.

    Attributes:
        chunk:   images that are computed together
        threads: number of threads of the kernels
    """

    def __init__(
        self, model: PackedModel, first_layer_method: FirstLayer = FirstLayer.auto, threads: int = 0
    ) -> None:
        self.model = model
        self.threads = number_of_threads(threads)
        if first_layer_method is FirstLayer.auto:
            first_layer_method = FirstLayer.bytes if HAS_FAST_BYTES else FirstLayer.planes
        self.first_layer_method = first_layer_method
        # Bytes of an image's bits in the widest layer, or of its pixels.
        largest = max(
            math.prod(model.spec.image_shape),
            *(s.activations * s.output_bits // 8 for s in (e.shape for e in model.layers[:-1])),
        )
        self.chunk = int(np.clip(CHUNK_BYTES // max(1, largest), 1, MAX_CHUNK))
        self.steps: list[Step] = []
        previous: Layer | None = None
        for layer in model.layers:
            max_pixel = model.spec.max_pixel if previous is None else 0
            make: type[Step] = _Conv if layer.shape.is_conv else _Dense
            self.steps.append(make(layer, max_pixel, first_layer_method, previous))
            previous = layer.shape
        # Sets of buffers that no call is using; pop and append of a list are atomic.
        self._idle: list[list[NDArray[Any]]] = []

    def scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Scores of any number of images.

        Shapes:
            pixels:  (n, channels, height, width) uint8
            returns  (n, classes) float64
        """
        out = np.empty((len(pixels), len(self.model.spec.classes)))
        before, buffers = set_threads(self.threads), self._take_buffers()
        try:
            for start in range(0, len(pixels), self.chunk):
                part = pixels[start : start + self.chunk]
                out[start : start + len(part)] = self._run(part, buffers)
        finally:
            self._idle.append(buffers)
            set_threads(before)
        return out

    def trace(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[list[NDArray[np.uint8]], NDArray[np.float64]]:
        """(codes, scores) of at most `chunk` images; codes is a list, an array a hidden layer.

        Shapes:
            returns  (n, N) or (n, height, width, N) uint8 a layer; (n, classes) float64
        """
        before, buffers = set_threads(self.threads), self._take_buffers()
        try:
            scores = self._run(pixels, buffers)
            pairs = zip(pairwise(self.steps), buffers[1:], strict=True)
            return [b.read(buffer, len(pixels), a.shape) for (a, b), buffer in pairs], scores
        finally:
            self._idle.append(buffers)
            set_threads(before)

    def layer_calls(self, pixels: NDArray[np.uint8]) -> list[Callable[[], object]]:
        """What `scores` does of the first `chunk` images at most, part by part, to be timed.

        The pixels' way to the first layer, then each layer, on what the one before has written; the
        threads are those of the caller.
        """
        part, buffers = pixels[: self.chunk], self._take_buffers()
        self._run(part, buffers)
        calls: list[Callable[[], object]] = [partial(self.steps[0].enter, part, buffers[0])]
        inputs = [self.steps[0].enter(part, buffers[0]), *buffers[1:]]
        for i, (step, next_step) in enumerate(pairwise(self.steps)):
            calls.append(partial(step.run, inputs[i], len(part), next_step, buffers[i + 1]))
        last = cast(_Dense, self.steps[-1])
        return [*calls, lambda: last.accumulators(buffers[-1], len(part))]

    def _run(self, pixels: NDArray[np.uint8], buffers: list[NDArray[Any]]) -> NDArray[np.float64]:
        count, a = len(pixels), self.steps[0].enter(pixels, buffers[0])
        for (step, next_step), out in zip(pairwise(self.steps), buffers[1:], strict=True):
            step.run(a, count, next_step, out)
            a = out
        accumulators = cast(_Dense, self.steps[-1]).accumulators(a, count)
        return self.model.layers[-1].scores(accumulators)

    def _take_buffers(self) -> list[NDArray[Any]]:
        """Take a set of buffers: the input of each layer, for a chunk of images."""
        try:
            return self._idle.pop()
        except IndexError:
            rows = padded_rows(self.chunk)
            return [step.new_input(rows) for step in self.steps]


def _weights(
    layer: PackedLayer, max_pixel: int, first_layer_method: FirstLayer, channels: int
) -> _Weights:
    """Lay out the weights of a layer.

    Args:
        max_pixel: largest pixel value in the first layer, else 0
        channels:  input channels, each pixel padded to whole words; 0 if the row is flat
    """
    shape, k = layer.shape, layer.shape.k
    w = signed_weights(layer)
    is_bytes = max_pixel > 0 and first_layer_method is FirstLayer.bytes
    planes = int(max_pixel).bit_length() if max_pixel else shape.input_bits
    panels = _byte_panels(w) if is_bytes else _bit_panels(w, shape, channels or k, planes)
    if shape.last:
        values: NDArray[Any] = np.full((1, 1, shape.outputs), shape.unit * k)
    else:
        values = accumulator_thresholds(layer, w, max_pixel > 0, 0 if is_bytes else planes)
    thresholds = np.full((*values.shape[:2], panels.width), -1, np.int32)
    thresholds[..., : shape.outputs] = values
    flips = np.zeros(panels.width, bool)
    flips[: shape.outputs] = layer.flip
    half_words = pack(flips).view(np.uint16)[: panels.width // LANES]
    return _Weights(panels, thresholds, half_words)


def _bit_panels(w: NDArray[np.int8], shape: Layer, group: int, planes: int) -> Panels:
    highest_first = weight_planes(w, shape.weight_bits)[::-1]
    groups = pack(highest_first.reshape(shape.weight_bits, len(w), -1, group))
    return xnor.encode_weights(groups.reshape(shape.weight_bits, len(w), -1), planes)


def _byte_panels(w: NDArray[np.int8]) -> Panels:
    rows = np.zeros((len(w), -(-w.shape[1] // 4) * 4), np.int8)
    rows[:, : w.shape[1]] = -w
    data = to_panels(rows.view(np.uint32), rows.shape[1] // 4)
    return Panels(data.view(np.int8), len(w))


class Step(ABC):
    """A layer. Its input is a buffer from `new_input`, which the previous layer wrote."""

    shape: Layer
    weights: _Weights

    @property
    @abstractmethod
    def plane(self) -> int:
        """Words from one bit plane of the input to the next."""

    @abstractmethod
    def __init__(
        self,
        layer: PackedLayer,
        max_pixel: int,
        first_layer_method: FirstLayer,
        previous: Layer | None,
    ) -> None: ...

    @abstractmethod
    def new_input(self, count: int) -> NDArray[Any]:
        """A buffer for the rows, or padded images, of `count` images."""

    @abstractmethod
    def enter(self, pixels: NDArray[np.uint8], buffer: NDArray[Any]) -> NDArray[Any]:
        """The input of the first layer: the buffer with a chunk's pixels, or the pixels as is."""

    @abstractmethod
    def run(self, buffer: NDArray[Any], count: int, next_step: "Step", out: NDArray[Any]) -> None:
        """Write the bits of `count` images to `out`, the input buffer of the next layer."""

    @abstractmethod
    def target(
        self, y: NDArray[np.intp], x: NDArray[np.intp], width: int, cells: int
    ) -> NDArray[np.intp]:
        """Where the previous convolution writes the bits of pixel (y, x): `cells` uint16 each."""

    @abstractmethod
    def images(self, buffer: NDArray[Any], count: int, previous: Layer) -> Words:
        """What the layer `previous` wrote to `buffer`: (count, planes, [H, W,] words)."""

    def read(self, buffer: NDArray[Any], count: int, previous: Layer) -> NDArray[np.uint8]:
        """The codes that the layer `previous` wrote to `buffer`."""
        planes = unpack_bits(self.images(buffer, count, previous), previous.outputs)
        code = np.zeros_like(planes[:, 0])
        for plane in np.moveaxis(planes, 1, 0):
            code = 2 * code + plane
        return code


class _Dense(Step):
    """A fully connected layer and the rows it reads: bits, or pixels as bytes or bit planes."""

    def __init__(
        self,
        layer: PackedLayer,
        max_pixel: int,
        first_layer_method: FirstLayer,
        previous: Layer | None,
    ) -> None:
        self.shape = layer.shape
        channels = previous.outputs if previous is not None and previous.is_conv else 0
        self.weights = _weights(layer, max_pixel, first_layer_method, channels)

    @property
    def plane(self) -> int:
        return self.weights.panels.kw

    def new_input(self, count: int) -> NDArray[Any]:
        return xnor.empty_rows(count, self.weights.panels.row)

    def enter(self, pixels: NDArray[np.uint8], buffer: NDArray[Any]) -> NDArray[Any]:
        flat = np.ascontiguousarray(pixels.reshape(len(pixels), -1))
        panels, (m, k) = self.weights.panels, flat.shape
        if not panels.of_bytes:
            cpu.pack_planes(flat.ravel(), m, k, buffer.ravel(), panels.kw, panels.planes)
            return buffer
        if k == 4 * panels.row:
            of_words = flat.view(np.uint32)
            # Numba compiles a kernel again for arrays that are read-only or not aligned.
            if of_words.flags.behaved:
                return of_words
        buffer.view(np.uint8)[:m, :k] = flat
        return buffer

    def run(self, buffer: NDArray[Any], count: int, next_step: Step, out: NDArray[Any]) -> None:
        w = self.weights
        xnor.multiply_to_bits(buffer, count, w.panels, w.thresholds[:, 0], out, next_step.plane)

    def accumulators(self, buffer: NDArray[Any], count: int) -> NDArray[np.int32]:
        """Pre-activations of the output layer, (count, N)."""
        w = self.weights
        out = np.empty((padded_rows(count), w.panels.width), np.int32)
        xnor.multiply(buffer, count, w.panels, w.thresholds[0, 0], out)
        return out[:count, : self.shape.outputs]

    def target(
        self, y: NDArray[np.intp], x: NDArray[np.intp], width: int, cells: int
    ) -> NDArray[np.intp]:
        return (y * width + x) * cells

    def images(self, buffer: NDArray[Any], count: int, previous: Layer) -> Words:
        rows: Words = buffer[:count].reshape(count, self.shape.input_bits, self.plane)
        if not previous.is_conv:
            return rows
        height, width = previous.pooled
        cells = words(previous.outputs)
        return rows[..., : height * width * cells].reshape(count, -1, height, width, cells)


class _Conv(Step):
    """A 3x3 convolution and the padded images it reads: words of bits, or pixels as bytes."""

    def __init__(
        self,
        layer: PackedLayer,
        max_pixel: int,
        first_layer_method: FirstLayer,
        previous: Layer | None,
    ) -> None:
        shape = self.shape = layer.shape
        self.weights = _weights(
            layer, max_pixel, first_layer_method, 0 if max_pixel else shape.inputs
        )
        height, width = shape.size
        self.cells = shape.inputs if max_pixel else words(shape.inputs)
        self.dtype: type[np.generic] = np.uint8 if max_pixel else np.uint32
        self.line, self.run_length = (width + 2) * self.cells, 3 * self.cells
        y, x = _order(shape)
        self.origins = ((y * (width + 2) + x) * self.cells).astype(np.int32)
        classes, _ = borders(height, width)
        used = classes if self.weights.thresholds.shape[1] > 1 else np.zeros_like(classes)
        self.borders = used[y, x].astype(np.int32)
        self.y, self.x = (y // 2, x // 2) if shape.pool else (y, x)

    @property
    def plane(self) -> int:
        height, width = self.shape.size
        return (height + 2) * (width + 2) * self.cells

    def new_input(self, count: int) -> NDArray[Any]:
        height, width = self.shape.size
        return aligned(
            (count, self.shape.input_bits, height + 2, width + 2, self.cells), self.dtype
        )

    def enter(self, pixels: NDArray[np.uint8], buffer: NDArray[Any]) -> NDArray[Any]:
        buffer[: len(pixels), 0, 1:-1, 1:-1] = pixels.transpose(0, 2, 3, 1)
        return buffer

    def run(self, buffer: NDArray[Any], count: int, next_step: Step, out: NDArray[Any]) -> None:
        w, panels = self.weights, self.weights.panels
        cells = 2 * words(self.shape.outputs)
        targets = next_step.target(self.y, self.x, self.shape.pooled[1], cells).astype(np.int32)
        halves = out.reshape(len(out), -1).view(np.uint16)
        bands = max(1, -(-4 * thread_count() // count))
        rows = min(
            cpu.BAND_ROWS, -(-len(self.origins) // bands // tiles.TILE_ROWS) * tiles.TILE_ROWS
        )
        packs_pixels = self.dtype is np.uint8 and not panels.of_bytes
        plane_size = 0 if packs_pixels else self.plane
        levels = w.thresholds.reshape(len(w.thresholds), -1)
        of_kernel = levels if len(levels) > 1 else levels[0]
        conv_bits(
            buffer.ravel(), count, buffer[0].size,
            plane_size, self.origins, self.line,
            self.run_length, panels.data.ravel(), panels.data[0].size, panels.kw, panels.planes,
            panels.pairs, of_kernel, self.shape.output_bits,
            self.borders, self.shape.pool, w.flips, halves.ravel(), halves.shape[1],
            2 * next_step.plane, targets, rows,
        )  # fmt: skip

    def target(
        self, y: NDArray[np.intp], x: NDArray[np.intp], width: int, cells: int
    ) -> NDArray[np.intp]:
        return ((y + 1) * (width + 2) + x + 1) * cells

    def images(self, buffer: NDArray[Any], count: int, previous: Layer) -> Words:
        images: Words = buffer[:count, :, 1:-1, 1:-1]
        return images


def _order(shape: Layer) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(y, x) of the patches of an image; with pooling, window by window.

    The last patch is repeated up to a multiple of TILE_ROWS.
    """
    height, width = shape.size
    if shape.pool:
        at = np.indices((height // 2, width // 2, 2, 2))
        y, x = (2 * at[0] + at[2]).ravel(), (2 * at[1] + at[3]).ravel()
    else:
        y, x = (part.ravel() for part in np.indices((height, width)))
    more = padded_rows(len(y)) - len(y)
    return np.pad(y, (0, more), "edge"), np.pad(x, (0, more), "edge")
