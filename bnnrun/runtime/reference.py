"""The reference implementation of a packed network: ±1 unpacked, integer products, thresholds.

It needs NumPy alone and is slow. The fast networks are tested against it.
"""

import numpy as np
from numpy.typing import NDArray

from bnnrun.gemm.bits import unpack
from bnnrun.gemm.reference import integer_product
from bnnrun.runtime.model import PackedLayer, PackedModel, borders

CHUNK = 100  # images of a chunk: the patches of a convolution take 9 times the memory of its input


class ReferenceNetwork:
    """Runs a packed model; the same interface as `PackedNetwork`."""

    def __init__(self, model: PackedModel) -> None:
        self.model = model
        self.chunk, self.threads = CHUNK, 1
        self.weights = [unpack(layer.weight, layer.shape.k) for layer in model.layers]

    def scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Scores of images.

        Shapes:
            pixels:  (n, channels, height, width) uint8
            returns  (n, classes) float64
        """
        return self.model.layers[-1].scores(self.sums(pixels))

    def sums(self, pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Pre-activations of the output layer, (n, classes) int32, of images as of `scores`."""
        starts = range(0, len(pixels), self.chunk)
        parts = [self._run(pixels[i : i + self.chunk])[1] for i in starts]
        empty = np.zeros((0, len(self.model.spec.classes)), np.int32)
        return np.concatenate([empty, *parts])

    def trace(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[list[NDArray[np.bool_]], NDArray[np.float64]]:
        """(hidden, scores) of at most `chunk` images; hidden is a list, an array a layer.

        Shapes:
            returns  (n, N) or (n, height, width, N) bool a layer; (n, classes) float64
        """
        hidden, sums = self._run(pixels)
        return hidden, self.model.layers[-1].scores(sums)

    def _run(self, pixels: NDArray[np.uint8]) -> tuple[list[NDArray[np.bool_]], NDArray[np.int32]]:
        """(bits of each hidden layer, sums of the output layer)."""
        hidden: list[NDArray[np.bool_]] = []
        a = pixels.astype(np.int32)
        if self.model.layers[0].shape.is_conv:
            a = a.transpose(0, 2, 3, 1)
        for layer, w in zip(self.model.layers, self.weights, strict=True):
            largest = layer.shape.k * int(np.abs(a).max(initial=1))
            rows = _patches(a) if layer.shape.is_conv else a.reshape(len(a), -1)
            s = integer_product(rows, w, largest)
            if layer.shape.last:
                return hidden, s
            bits = _pooled(_bits(s, layer), layer)
            hidden.append(bits)
            a = 2 * bits.astype(np.int32) - 1
        raise AssertionError("a network ends in its output layer")


def _patches(a: NDArray[np.int32]) -> NDArray[np.int32]:
    """Patches of a 3x3 convolution (im2col), with zeros around the image.

    Shapes:
        a:       (n, height, width, C)
        returns  (n, height, width, 9 C)
    """
    n, height, width, channels = a.shape
    padded = np.zeros((n, height + 2, width + 2, channels), np.int32)
    padded[:, 1:-1, 1:-1] = a
    return np.concatenate(
        [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=3
    )


def _bits(s: NDArray[np.int32], layer: PackedLayer) -> NDArray[np.bool_]:
    if len(layer.threshold) > 1:
        t = layer.threshold[borders(*layer.shape.size)[0]]
    else:
        t = layer.threshold[0]
    return np.where(layer.flip, s <= t, s >= t)


def _pooled(bits: NDArray[np.bool_], layer: PackedLayer) -> NDArray[np.bool_]:
    """Max pooling of bits: the OR of a window's bits; the AND where `flip`."""
    if not layer.shape.pool:
        return bits
    n, height, width, channels = bits.shape
    windows = bits[:, : height // 2 * 2, : width // 2 * 2].reshape(
        n, height // 2, 2, width // 2, 2, channels
    )
    return np.where(layer.flip, windows.all(axis=(2, 4)), windows.any(axis=(2, 4)))
