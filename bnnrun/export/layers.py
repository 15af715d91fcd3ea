"""A packed network's layers as all exports compute them: the code of a sum is the number of t <= s.

A channel of k bits has n = 2^k - 1 thresholds, and its code c stands for the integer 2c - n. A
flipped channel (gamma < 0) counts the thresholds with s <= t. The n - c others have s > t, which is
s >= t + 1, so that n - c is the code of a channel without flip whose thresholds are t + 1. This
code is stored instead of c. It stands for 2(n - c) - n = -(2c - n), and the weights that the next
layer multiplies with it are negated, which changes no product, and so no sum. Negated weights are
weights: -(2c - n) is the integer of the code n - c. Padding multiplies by 0 in either form.

So no export needs flips, and thresholds ascend in every channel. A pixel of code c reaches the
first c of them; those that some pixel of a window reaches are the first m, m the largest code. So
2x2 max-pooling is the maximum of codes, of one bit the OR, also where pixels of different border
classes have different thresholds. A flipped channel pools by AND, whose inverse is the OR of the
inverses.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnnrun.architecture import Layer
from bnnrun.runtime.model import PackedLayer, PackedModel


@dataclass(frozen=True)
class ExportLayer:
    """A product with integer weights 2c - n, then the number of thresholds t <= s.

    Attributes:
        packed:    the layer in its packed form
        previous:  shape of the layer before it, or None
        weight:    (N, groups, channels) int8, the integers 2c - n: ±1 of one bit. Groups are the
                   nine taps of a convolution, the pixels of the map before a fully connected layer,
                   or else one
        threshold: (2^bits - 1 of an output, border classes, N) int64, ascending, in
                   [-largest, largest + 1]; (0, 0, N) in the output layer
        largest:   of |s|
    """

    packed: PackedLayer
    previous: Layer | None
    weight: NDArray[np.int8]
    threshold: NDArray[np.int64]
    largest: int

    @property
    def shape(self) -> Layer:
        return self.packed.shape

    @property
    def graph_weight(self) -> NDArray[np.int8]:
        """As graphs have it: (N, channels, 3, 3), or (N, K) with K over channels, then pixels."""
        n, _, channels = self.weight.shape
        if self.shape.is_conv:
            return self.weight.transpose(0, 2, 1).reshape(n, channels, 3, 3)
        return self.weight.transpose(0, 2, 1).reshape(n, -1)


def export_layers(model: PackedModel) -> Iterator[ExportLayer]:
    """The layers of a network, first to last."""
    previous: PackedLayer | None = None
    for layer in model.layers:
        shape, largest_input = layer.shape, 1 if previous is not None else model.spec.max_pixel
        channels = shape.inputs if shape.is_conv else shape.k
        if previous is not None and previous.shape.is_conv:
            channels = previous.shape.outputs
        w = layer.weight_levels().reshape(shape.outputs, -1, channels)
        if previous is not None:
            w = np.where(previous.flip, -w, w)
        largest = shape.k * shape.unit * largest_input
        t = np.sort(layer.threshold.astype(np.int64) + layer.flip, axis=0)
        t = t.clip(-largest, largest + 1)
        yield ExportLayer(layer, None if previous is None else previous.shape, w, t, largest)
        previous = layer


def bit_planes(levels: NDArray[np.int8], bits: int) -> NDArray[np.bool_]:
    """The bits of the codes of integers 2c - n, the lowest first: (bits, *levels.shape)."""
    codes = (levels + (2**bits - 1)) >> 1
    shifts = np.arange(bits, dtype=np.int8).reshape(-1, *[1] * levels.ndim)
    planes: NDArray[np.bool_] = (codes >> shifts & 1).astype(bool)
    return planes
