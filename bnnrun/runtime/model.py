"""A packed network as plain arrays: weights as bits, batch norm and Sign as integer thresholds.

A number of k bits stands for (2c - n) / n, c its code in 0 .. n = 2^k - 1; bit plane i holds bit i
of the codes. 2c - n is the sum over i of 2^i (±1), so that products are sums of one-bit products.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnnrun.architecture import Layer
from bnnrun.data.dataset import ImageSpec
from bnnrun.gemm.bits import Words, unpack

MAX_BITS = 4  # of a packed number: 8 would take 255 thresholds a channel


@dataclass(frozen=True)
class PackedLayer:
    """A layer of quantized weights, with thresholds of its pre-activations, or its affine scores.

    The pre-activations s are the integers a · w of inputs 2c - n and weights 2c - n, in the first
    layer x · w of 8-bit pixels x. The code of a hidden activation is the number of its thresholds
    with s >= t, or s <= t where `flip` (gamma < 0); of one bit it is the bit. A first convolution
    has thresholds per border class: the input offset q contributes only at taps inside the image.

    Attributes:
        shape:     name, inputs, outputs, kernel, size, pool, bits
        weight:    (weight bits, N, ceil(K / 32)) uint32, bit planes, the lowest first; K runs over
                   rows, columns, channels in a convolution, and in the fully connected layer after
                   one
        threshold: (2^bits - 1 of an output, border classes, N) int32, in the order in which a sum
                   reaches them; one class except in a first convolution; (0, 0, N) in the output
                   layer
        flip:      (N,) bool
        mean, scale, shift: (N,) float64 in the output layer, whose scores are
                   (s / shape.unit - mean) · scale + shift; else (0,)
    """

    shape: Layer
    weight: Words
    threshold: NDArray[np.int32]
    flip: NDArray[np.bool_]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]

    def scores(self, s: NDArray[np.integer]) -> NDArray[np.float64]:
        """Scores of the output layer's pre-activations, in float64 as in evaluation."""
        v = s.astype(np.float64) / self.shape.unit
        result: NDArray[np.float64] = (v - self.mean) * self.scale + self.shift
        return result

    def weight_levels(self) -> NDArray[np.int8]:
        """The weights as the integers 2c - n, (N, K) int8: ±1 of one bit."""
        planes = unpack(self.weight, self.shape.k)
        weighted = planes << np.arange(len(planes), dtype=np.int8)[:, None, None]
        levels: NDArray[np.int8] = weighted.sum(axis=0, dtype=np.int8)
        return levels


@dataclass(frozen=True)
class PackedModel:
    """A classifier of 8-bit images, packed.

    Attributes:
        spec:   shape of the images, names of the classes, largest pixel value
        layers: first to last
        input:  (p, q, d): a pixel x enters as (p·x + q) / d; folded into the first thresholds
        source: what the network was packed from: text by key
    """

    spec: ImageSpec
    layers: tuple[PackedLayer, ...]
    input: tuple[float, float, float]
    source: dict[str, str]


def borders(height: int, width: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Border classes of an image: which taps of a 3x3 patch lie on the padding.

    Returns:
        (classes, taps): the class of each pixel, (height, width); whether each tap lies on the
        image, (number of classes, 3, 3)
    """
    rows = (np.arange(height) == 0) + 2 * (np.arange(height) == height - 1)
    columns = (np.arange(width) == 0) + 2 * (np.arange(width) == width - 1)
    codes, classes = np.unique(4 * rows[:, None] + columns, return_inverse=True)
    taps = np.ones((len(codes), 3, 3), bool)
    taps[:, 0] &= ((codes // 4) & 1 == 0)[:, None]
    taps[:, 2] &= ((codes // 4) & 2 == 0)[:, None]
    taps[:, :, 0] &= (codes & 1 == 0)[:, None]
    taps[:, :, 2] &= (codes & 2 == 0)[:, None]
    return classes.reshape(height, width), taps
