"""A packed network on a GPU: bits from layer to layer, memory allocated once, a graph a batch size.

Numbers of more than one bit lie in bit planes, the lowest first. A fully connected layer of them is
one product of bits, every plane of its input a row and every plane of its weights a column, and a
kernel that adds up each output's products and compares; the other kernels take planes themselves.
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
from bnnrun.runtime.thresholds import accumulator_thresholds, signed_weights, weight_planes

MAX_CHUNK = 4096  # images of a chunk
MAX_PIXELS = 2**21  # of the images of a chunk: the grid's second dimension is bounded
MAX_PRODUCTS = 2**27  # int32 of a chunk, between the kernels of a layer: 512 MiB


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
        products = max(_products(layer.shape) for layer in model.layers[1:])
        largest = min(MAX_PIXELS // pixels, MAX_PRODUCTS // products)
        self.chunk = int(np.clip(largest, 1, MAX_CHUNK))
        self.products = device.empty((self.chunk * products,), np.int32)
        self.pixels = device.empty((self.chunk, *model.spec.image_shape), np.uint8)
        planes = first_layer_method is FirstLayer.planes
        self.first_layer_method = FirstLayer.planes if planes else FirstLayer.bytes
        self.layers = [
            _Layer(self.xnor, layer, self.products, self.chunk, is_first=i == 0, planes=planes)
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
        return self.model.layers[-1].scores(self.layers[-1].pre_activations(count))

    def _launch(self, count: int) -> None:
        for i, layer in enumerate(self.layers):
            layer.launch(count, self.pixels if i == 0 else None)


class _Layer:
    """A layer on the device: its weights, thresholds and output buffers.

    Attributes:
        out:      (chunk, bits, [H', S',] OW) uint32, the bit planes of a hidden layer
        ones:     (chunk, bits) int32, their popcounts
        products: of `_products` for each image of a chunk, flat int32; shared by the layers
    """

    def __init__(
        self, xnor: Xnor, layer: PackedLayer, products: Any, chunk: int, *, is_first: bool,
        planes: bool,
    ) -> None:  # fmt: skip
        self.xnor, self.layer, self.products = xnor, layer, products
        self.is_first, self.planes = is_first, planes
        shape, device = layer.shape, xnor.device
        self.w = signed_weights(layer)
        self.input: _Layer | None = None
        if not shape.last:
            levels = accumulator_thresholds(layer, self.w, is_first, 8 if planes else 0)
            # (border classes, thresholds, N), as the kernels read them
            thresholds = np.ascontiguousarray(levels.swapaxes(0, 1), np.int32)
            self.thresholds = device.put(thresholds)
            across, bits = row_words(shape.outputs), shape.output_bits
            size = (*shape.pooled, across) if shape.is_conv else (across,)
            self.out = device.zeros((chunk, bits, *size), np.uint32)
            self.ones = device.zeros((chunk, bits), np.int32)
        if shape.is_conv:
            classes = borders(*shape.size)[0] if len(thresholds) > 1 else np.zeros(shape.size, int)
            self.classes = device.put(classes.ravel().astype(np.int32))
            flips = np.zeros((1, 32 * across), bool)
            flips[0, : shape.outputs] = layer.flip
            self.flips = device.put(pack(flips)[0])
        if is_first:
            rows = pack(weight_planes(self.w, shape.weight_bits)) if planes else _byte_rows(-self.w)
            self.weights = device.put(rows)
        else:
            self.weights = None

    def read(self, previous: "_Layer") -> None:
        """Read the output of `previous`, and lay out the weights as its bits are laid out."""
        self.input = previous
        source, shape, device = previous.layer.shape, self.layer.shape, self.xnor.device
        group = source.outputs if source.is_conv else shape.k
        planes = weight_planes(self.w, shape.weight_bits)
        pieces = pack(planes.reshape(shape.weight_bits * shape.outputs, -1, group))
        padded = np.zeros((*pieces.shape[:2], row_words(group)), np.uint32)
        padded[..., : pieces.shape[2]] = pieces
        rows = padded.reshape(len(padded), -1)
        if shape.is_conv:
            self.weights = device.put(rows.reshape(shape.weight_bits, shape.outputs, -1))
        else:
            ones = np.bitwise_count(rows).sum(axis=1, dtype=np.int32)
            self.weights = Bits(device.put(rows), device.put(ones), shape.k)

    def launch(self, count: int, pixels: Any) -> None:
        """Launch the kernels of the first `count` images."""
        shape, device = self.layer.shape, self.xnor.device
        if not shape.last:
            device.clear(self.ones)
        if self.is_first or shape.is_conv:
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
        elif not _products(shape):
            target = self._planes(count, shape.outputs)
            self.xnor.multiply_to_bits(
                self._rows(count), self.weights, self.thresholds[0, 0], target
            )
        else:
            products = self._products(count)
            self.xnor.multiply(self._rows(count), self.weights, out=products)
            if not shape.last:
                device.launch(
                    cuda.code_planes(
                        products, self.out[:count], self.ones[:count], self.thresholds[0],
                        shape.k, shape.input_bits, shape.weight_bits,
                    )
                )  # fmt: skip

    def pre_activations(self, count: int) -> NDArray[np.int32]:
        """Pre-activations of the output layer, (count, N)."""
        shape = self.layer.shape
        products = self.xnor.device.get(self._products(count)).reshape(
            count, shape.input_bits, shape.weight_bits, shape.outputs
        )
        weights = (1 << np.arange(bits, dtype=np.int32) for bits in products.shape[1:3])
        s: NDArray[np.int32] = np.einsum("mijn,i,j->mn", products, *weights)
        return s

    def codes(self, count: int) -> NDArray[np.uint8]:
        """The codes of the first `count` images."""
        words: Words = self.xnor.device.get(self.out[:count])
        planes = np.moveaxis(unpack_bits(words, self.layer.shape.outputs), 1, -1)
        codes: NDArray[np.uint8] = planes @ (1 << np.arange(planes.shape[-1], dtype=np.uint8))
        return codes

    def _rows(self, count: int) -> Bits:
        """The output of the previous layer: a row for each plane of each image."""
        assert self.input is not None
        return self.input._planes(count, self.layer.shape.k)

    def _planes(self, count: int, k: int) -> Bits:
        """The output of this layer as rows of `k` bits, one for each plane of each image."""
        rows = count * self.layer.shape.output_bits
        return Bits(self.out[:count].reshape(rows, -1), self.ones[:count].reshape(rows), k)

    def _products(self, count: int) -> Any:
        """The products of planes of the first `count` images, a row for each plane of its input."""
        shape = self.layer.shape
        rows, columns = count * shape.input_bits, shape.weight_bits * shape.outputs
        return self.products[: rows * columns].reshape(rows, columns)


def _products(shape: Layer) -> int:
    """Products of planes of an image that a layer after the first leaves in memory.

    Of the output layer they are what the host reads; of a layer that is one kernel there are none.
    """
    bits = shape.weight_bits, shape.input_bits, shape.output_bits
    if shape.is_conv or (bits == (1, 1, 1) and not shape.last):
        return 0
    return shape.input_bits * shape.weight_bits * shape.outputs


def _byte_rows(w: NDArray[np.int8]) -> Words:
    rows = np.zeros((len(w), -(-w.shape[1] // 4) * 4), np.int8)
    rows[:, : w.shape[1]] = w
    return rows.view(np.uint32)
