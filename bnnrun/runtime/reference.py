"""The reference implementation of a packed network: integers, their products, thresholds.

It is running a BNN (Alg. 5; NIPS Alg. 4), the first layer by its 8-bit pixels (section 1.6; NIPS
Eq. 6); batch norm and Sign are the comparisons of pack/fold.py.

It needs NumPy alone and is slow. The fast networks are tested against it.
"""

import numpy as np
from numpy.typing import NDArray

from bnnrun.gemm.reference import integer_product
from bnnrun.runtime.model import PackedLayer, PackedModel, borders

CHUNK = 100  # images of a chunk: the patches of a convolution take 9 times the memory of its input


class ReferenceNetwork:
    """Runs a packed model; the same interface as `PackedNetwork`."""

    def __init__(self, model: PackedModel) -> None:
        self.model = model
        self.chunk, self.threads = CHUNK, 1
        self.weights = [layer.weight_levels() for layer in model.layers]

    def scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Scores of images.

        Shapes:
            pixels:  (n, channels, height, width) uint8
            returns  (n, classes) float64
        """
        return self.model.layers[-1].scores(self.accumulators(pixels))

    def accumulators(self, pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Pre-activations of the output layer, (n, classes) int32, of images as of `scores`."""
        starts = range(0, len(pixels), self.chunk)
        parts = [self._run(pixels[i : i + self.chunk])[1] for i in starts]
        empty = np.zeros((0, len(self.model.spec.classes)), np.int32)
        return np.concatenate([empty, *parts])

    def trace(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[list[NDArray[np.uint8]], NDArray[np.float64]]:
        """(codes, scores) of at most `chunk` images; codes is a list, an array a hidden layer.

        Shapes:
            returns  (n, N) or (n, height, width, N) uint8 a layer; (n, classes) float64
        """
        hidden, accumulators = self._run(pixels)
        return hidden, self.model.layers[-1].scores(accumulators)

    def _run(self, pixels: NDArray[np.uint8]) -> tuple[list[NDArray[np.uint8]], NDArray[np.int32]]:
        """(codes of each hidden layer, accumulators of the output layer)."""
        hidden: list[NDArray[np.uint8]] = []
        a = pixels.astype(np.int32)
        if self.model.layers[0].shape.is_conv:
            a = a.transpose(0, 2, 3, 1)
        for layer, w in zip(self.model.layers, self.weights, strict=True):
            largest = layer.shape.k * int(np.abs(a).max(initial=1)) * int(np.abs(w).max())
            rows = _patches(a) if layer.shape.is_conv else a.reshape(len(a), -1)
            s = integer_product(rows, w, largest)
            if layer.shape.last:
                return hidden, s
            codes = _codes(_pooled(_reached(s, layer), layer))
            hidden.append(codes)
            a = 2 * codes.astype(np.int32) - (2**layer.shape.output_bits - 1)
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


def _reached(s: NDArray[np.int32], layer: PackedLayer) -> NDArray[np.bool_]:
    """Whether each sum reaches each threshold: (thresholds, *s.shape)."""
    t = layer.threshold
    t = t[:, borders(*layer.shape.size)[0]] if t.shape[1] > 1 else t[:, 0]
    t = t.reshape(len(t), *[1] * (s.ndim - t.ndim + 1), *t.shape[1:])
    return np.where(layer.flip, s <= t, s >= t)


def _pooled(reached: NDArray[np.bool_], layer: PackedLayer) -> NDArray[np.bool_]:
    """Max pooling: the OR over a window; the AND where `flip`, whose largest sum comes last."""
    if not layer.shape.pool:
        return reached
    j, n, height, width, channels = reached.shape
    windows = reached[:, :, : height // 2 * 2, : width // 2 * 2].reshape(
        j, n, height // 2, 2, width // 2, 2, channels
    )
    return np.where(layer.flip, windows.all(axis=(3, 5)), windows.any(axis=(3, 5)))


def _codes(reached: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The number of thresholds reached."""
    codes: NDArray[np.uint8] = reached.sum(axis=0, dtype=np.uint8)
    return codes
