"""A packed network on a GPU: bits from layer to layer, memory allocated once, a graph a batch size.

The host copies pixels to the GPU and the output layer's integer pre-activations back, and computes
the scores from them in float64, as every other implementation does.
"""

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.architecture import Layer
from bnnrun.config import FirstLayer
from bnnrun.gemm import cuda, dispatch
from bnnrun.gemm.bits import Words, pack, unpack_bits
from bnnrun.gemm.cuda import Bits, Xnor, row_words
from bnnrun.gemm.cuda_device import Device
from bnnrun.runtime.model import PackedLayer, PackedModel, borders
from bnnrun.runtime.thresholds import accumulator_thresholds, signed_weights

MAX_CHUNK = 4096  # images of a chunk
MAX_PIXELS = 2**21  # of the images of a chunk: the grid's second dimension is bounded


class CudaNetwork:
    """Runs a packed model on a device. It has one set of buffers, so calls run one after the other.

    Attributes:
        chunk: images that are computed together
    """

    def __init__(
        self,
        model: PackedModel,
        device: Device,
        first_layer_method: FirstLayer = FirstLayer.auto,
        kernel: str = "auto",
    ) -> None:
        self.model, self.device, self.threads = model, device, 1
        self.xnor = dispatch.products(device, kernel)
        pixels = math.prod(model.spec.image_shape[1:])
        self.chunk = int(np.clip(MAX_PIXELS // pixels, 1, MAX_CHUNK))
        self.pixels = device.empty((self.chunk, *model.spec.image_shape), np.uint8)
        planes = first_layer_method is FirstLayer.planes
        self.first_layer_method = FirstLayer.planes if planes else FirstLayer.bytes
        self.layers = [
            _Layer(self.xnor, layer, self.chunk, model.spec.max_pixel if i == 0 else 0, planes)
            for i, layer in enumerate(model.layers)
        ]
        for previous, layer in zip(self.layers, self.layers[1:], strict=False):
            layer.read(previous)
        self._lock = threading.Lock()
        self._graphs: dict[int, Callable[[], None]] = {}

    def scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Scores of any number of images.

        Shapes:
            pixels:  (n, channels, height, width) uint8
            returns  (n, classes) float64
        """
        out = np.empty((len(pixels), len(self.model.spec.classes)))
        with self._lock:
            for start in range(0, len(pixels), self.chunk):
                part = pixels[start : start + self.chunk]
                out[start : start + len(part)] = self._run(part)
        return out

    def trace(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[list[NDArray[np.uint8]], NDArray[np.float64]]:
        """(codes, scores) of at most `chunk` images; codes is a list, an array a hidden layer.

        Shapes:
            returns  (n, N) or (n, height, width, N) uint8 a layer; (n, classes) float64
        """
        with self._lock:
            scores = self._run(pixels)
            return [layer.codes(len(pixels)) for layer in self.layers[:-1]], scores

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        count = len(pixels)
        self.device.put(np.ascontiguousarray(pixels), self.pixels[:count])
        if count not in self._graphs:
            self._graphs[count] = self.device.record(lambda: self._launch(count))
        self._graphs[count]()
        accumulators = self.device.get(self.layers[-1].accumulators[:count])
        return self.model.layers[-1].scores(accumulators)

    def _launch(self, count: int) -> None:
        for i, layer in enumerate(self.layers):
            layer.launch(count, self.pixels if i == 0 else None)


class _Layer:
    """A layer on the device: its weights, thresholds and output buffers.

    Attributes:
        out:          (chunk, [H', S',] OW) uint32, the bits of a hidden layer
        ones:         (chunk,) int32, their popcounts
        accumulators: (chunk, N) int32, the pre-activations of the output layer
    """

    def __init__(
        self, xnor: Xnor, layer: PackedLayer, chunk: int, max_pixel: int, planes: bool
    ) -> None:
        self.xnor, self.layer, self.planes, self.is_first = xnor, layer, planes, max_pixel > 0
        shape, device = layer.shape, xnor.device
        self.w = signed_weights(layer)
        self.input: _Layer | None = None
        if shape.last:
            self.accumulators = device.empty((chunk, shape.outputs), np.int32)
        else:
            thresholds = accumulator_thresholds(layer, self.w, self.is_first, 8 if planes else 0)[0]
            self.thresholds = device.put(np.ascontiguousarray(thresholds, np.int32))
            across = row_words(shape.outputs)
            size = (chunk, *shape.pooled, across) if shape.is_conv else (chunk, across)
            self.out, self.ones = device.zeros(size, np.uint32), device.zeros((chunk,), np.int32)
        if shape.is_conv:
            classes = borders(*shape.size)[0] if len(thresholds) > 1 else np.zeros(shape.size, int)
            self.classes = device.put(classes.ravel().astype(np.int32))
            flips = np.zeros((1, 32 * across), bool)
            flips[0, : shape.outputs] = layer.flip
            self.flips = device.put(pack(flips)[0])
        if self.is_first:
            rows = pack(self.w) if planes else _byte_rows(-self.w)
            self.weights = device.put(rows)
        else:
            self.weights = None

    def read(self, previous: "_Layer") -> None:
        """Read the output of `previous`, and lay out the weights as its bits are laid out."""
        self.input = previous
        source, shape = previous.layer.shape, self.layer.shape
        if not source.is_conv:
            self.weights = self.xnor.encode(pack(self.w), shape.k)
            return
        pieces = pack(self.w.reshape(len(self.w), -1, source.outputs))
        padded = np.zeros((*pieces.shape[:2], row_words(source.outputs)), np.uint32)
        padded[..., : pieces.shape[2]] = pieces
        rows = padded.reshape(len(padded), -1)
        if shape.is_conv:
            self.weights = self.xnor.device.put(rows)
        else:
            ones = np.bitwise_count(rows).sum(axis=1, dtype=np.int32)
            device = self.xnor.device
            self.weights = Bits(device.put(rows), device.put(ones), shape.k)

    def launch(self, count: int, pixels: Any) -> None:
        """Launch the kernels of the first `count` images."""
        shape, device = self.layer.shape, self.xnor.device
        if not shape.last:
            device.clear(self.ones)
        if shape.last:
            self.xnor.multiply(self._rows(count), self.weights, out=self.accumulators[:count])
        elif not self.is_first and not shape.is_conv:
            target = Bits(self.out[:count], self.ones[:count], shape.outputs)
            self.xnor.multiply_to_bits(self._rows(count), self.weights, self.thresholds[0], target)
        else:
            arguments = (
                self.weights, self.out[:count], self.ones[:count], self.thresholds,
                self.classes if shape.is_conv else None, self.flips if shape.pool else None,
            )  # fmt: skip
            if self.is_first:
                device.launch(
                    cuda.first_layer(
                        pixels[:count], *arguments, conv=shape.is_conv, pool=shape.pool,
                        planes=self.planes,
                    )
                )  # fmt: skip
            else:
                assert self.input is not None
                device.launch(cuda.convolution(self.input.out[:count], *arguments, pool=shape.pool))

    def _rows(self, count: int) -> Bits:
        """The output of the previous layer as rows of bits."""
        assert self.input is not None
        previous = self.input
        data = previous.out[:count].reshape(count, -1)
        return Bits(data, previous.ones[:count], self.layer.shape.k)

    def codes(self, count: int) -> NDArray[np.uint8]:
        """The codes of the first `count` images."""
        words: Words = self.xnor.device.get(self.out[:count])
        shape: Layer = self.layer.shape
        return unpack_bits(words, shape.outputs)


def _byte_rows(w: NDArray[np.int8]) -> Words:
    rows = np.zeros((len(w), -(-w.shape[1] // 4) * 4), np.int8)
    rows[:, : w.shape[1]] = w
    return rows.view(np.uint32)
