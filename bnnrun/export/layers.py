"""A packed network's layers as the operators of a graph compute them: ±1 arrays, and s >= t."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnnrun.architecture import Layer
from bnnrun.gemm.bits import unpack
from bnnrun.runtime.model import PackedLayer, PackedModel


@dataclass(frozen=True)
class GraphLayer:
    """A product with ±1 weights, then +1 where s >= t and -1 elsewhere.

    A flipped channel is +1 where s <= t, which is the negative of s >= t + 1. Its minus sign is in
    the weights of the next layer. So every layer compares alike, and 2x2 max-pooling of the ±1 is
    the OR, or AND, of the bits.

    Attributes:
        packed:    the layer in its packed form
        weight:    (N, C, 3, 3), or (N, K) with K over channels, rows, columns: int8 ±1
        threshold: (border classes, N) int64, in [-largest, largest + 1]
        largest:   of |s|
    """

    packed: PackedLayer
    weight: NDArray[np.int8]
    threshold: NDArray[np.int64]
    largest: int

    @property
    def shape(self) -> Layer:
        return self.packed.shape


def graph_layers(model: PackedModel) -> Iterator[GraphLayer]:
    """The layers of a network, first to last."""
    channels, height, width = model.spec.image_shape
    negated = np.zeros(channels, bool)
    largest_input, previous = model.spec.max_pixel, None
    for layer in model.layers:
        shape = layer.shape
        w = unpack(layer.weight, shape.k)
        if shape.is_conv or (previous is not None and previous.is_conv):
            # Packed with the channels innermost; a graph's images are (channels, rows, columns).
            side = (3, 3) if shape.is_conv else (height, width)
            w = w.reshape(shape.outputs, *side, -1).transpose(0, 3, 1, 2)
            w = np.where(negated[:, None, None], -w, w)
        elif previous is not None:
            w = np.where(negated, -w, w)
        if not shape.is_conv:
            w = w.reshape(shape.outputs, -1)
        largest = shape.k * largest_input
        t = layer.threshold.astype(np.int64) + layer.flip
        yield GraphLayer(layer, w, t.clip(-largest, largest + 1), largest)
        negated, largest_input, previous = layer.flip, 1, shape
        height, width = shape.pooled
