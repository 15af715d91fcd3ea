"""A packed network's layers as all exports compute them: ±1 weights, and one comparison, s >= t.

A flipped channel (gamma < 0) has bit 1 where s <= t, which is the inverse of s >= t + 1. The
inverse is stored, and the weights that the next layer multiplies with it are negated, which changes
no sum. So no export needs flips, and 2x2 max-pooling is the OR of a window's bits in every channel.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnnrun.architecture import Layer
from bnnrun.gemm.bits import unpack
from bnnrun.runtime.model import PackedLayer, PackedModel


@dataclass(frozen=True)
class ExportLayer:
    """A product with ±1 weights, then bit 1 where s >= t.

    Attributes:
        packed:    the layer in its packed form
        previous:  shape of the layer before it, or None
        weight:    (N, groups, channels) int8 ±1. Groups are the nine taps of a convolution, the
                   pixels of the map before a fully connected layer, or else one
        threshold: (border classes, N) int64, in [-largest, largest + 1]; (0, N) in the output layer
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
        w = unpack(layer.weight, shape.k).reshape(shape.outputs, -1, channels)
        if previous is not None:
            w = np.where(previous.flip, -w, w)
        largest = shape.k * largest_input
        t = (layer.threshold.astype(np.int64) + layer.flip).clip(-largest, largest + 1)
        yield ExportLayer(layer, None if previous is None else previous.shape, w, t, largest)
        previous = layer
