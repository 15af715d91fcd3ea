"""A packed network as plain arrays: weights as bits, batch norm and Sign as integer thresholds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnnrun.architecture import Layer
from bnnrun.data.dataset import ImageSpec
from bnnrun.gemm.bits import Words


@dataclass(frozen=True)
class PackedLayer:
    """A layer of ±1 weights, with the thresholds of its pre-activations s, or its affine scores.

    A hidden layer gives bit 1 where s >= t, or s <= t where `flip` (gamma < 0). In the first layer
    s = x · w of 8-bit pixels x. A first convolution has one threshold per border class: the input
    offset q contributes only at taps inside the image.

    Attributes:
        shape:     name, inputs, outputs, kernel, size, pool
        weight:    (N, ceil(K / 32)) uint32; K runs over rows, columns, channels in a convolution,
                   and in the fully connected layer after one
        threshold: (border classes, N) int32; one class except in a first convolution; (0, N) in
                   the output layer
        flip:      (N,) bool
        mean, scale, shift: (N,) float64 in the output layer, whose scores are
                   (s - mean) · scale + shift; else (0,)
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
        result: NDArray[np.float64] = (s.astype(np.float64) - self.mean) * self.scale + self.shift
        return result


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
