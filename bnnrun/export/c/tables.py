"""The tables of a network in C: weights as rows of bits, and the thresholds of each channel.

The first layer multiplies bit planes of the pixels. With x = sum_i 2^i b_i of bits b_i and
P = 2^planes - 1, x · w = P · (number of +1 in w) - sum_i 2^i popc(b_i ^ w) of w of one bit. The
constant is taken from the threshold, and the sum that C computes is -sum_i 2^i popc(b_i ^ w). Of
weights sum_j 2^j w_j, both are added up over their planes, times 2^j.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnnrun.architecture import Layer
from bnnrun.export.layers import ExportLayer, bit_planes, export_layers
from bnnrun.runtime.model import PackedModel


@dataclass(frozen=True)
class Tables:
    """A layer's constants.

    Attributes:
        name:      of its tables: conv1, conv2, ..., fc1, ..., output
        shape:     of the layer
        previous:  shape of the layer before it, or None
        planes:    bit planes of its input: those of the pixels in the first layer
        weights:   (weight bits · N, groups, bits) bool, plane by plane; each group begins a new
                   word. A group is a row of the first layer, a tap of a convolution, a pixel of the
                   map before a fully connected layer, or else a whole row
        threshold: (border classes, N · thresholds of a channel) int64, ascending in a channel,
                   clipped to one past the attainable sums; (0, 0) in the output layer
    """

    name: str
    shape: Layer
    previous: Layer | None
    planes: int
    weights: NDArray[np.bool_]
    threshold: NDArray[np.int64]

    @property
    def function(self) -> str:
        """What computes it: first_dense, first_conv, dense, conv or output."""
        if self.shape.last:
            return "output"
        product = "conv" if self.shape.is_conv else "dense"
        return f"first_{product}" if self.previous is None else product

    def row_words(self, word_bits: int) -> int:
        """Words of a row of weights."""
        _, groups, bits = self.weights.shape
        return int(groups * -(-bits // word_bits))

    def map_words(self, word_bits: int) -> int:
        """Words of the bits that it writes; 0 of the output layer, which writes none."""
        return self.shape.output_bits * self.plane_words(word_bits)

    def plane_words(self, word_bits: int) -> int:
        """Words of a bit plane of what it writes."""
        height, width = self.shape.pooled
        return 0 if self.shape.last else height * width * -(-self.shape.outputs // word_bits)

    def buffer_words(self, word_bits: int) -> int:
        """Words that it needs beside its maps: bit planes of pixels, or a patch."""
        needs_buffer = self.previous is None or self.shape.is_conv
        return self.planes * self.row_words(word_bits) if needs_buffer else 0

    def operations(self, word_bits: int) -> int:
        """Words that are compared by XOR and popcount for an image, taps on padding included."""
        height, width = self.shape.pooled
        pixels: int = height * width * (4 if self.shape.pool else 1)
        rows = pixels * self.shape.outputs * self.planes * self.shape.weight_bits
        return rows * self.row_words(word_bits)


def tables(model: PackedModel) -> list[Tables]:
    """The constants of each layer, first to last."""
    convolutions = sum(layer.shape.is_conv for layer in model.layers)
    result = []
    for i, layer in enumerate(export_layers(model), 1):
        name = f"conv{i}" if layer.shape.is_conv else f"fc{i - convolutions}"
        name = "output" if layer.shape.last else name
        of_pixels = model.spec.max_pixel.bit_length()
        planes = of_pixels if layer.previous is None else layer.shape.input_bits
        result.append(_tables(name, layer, planes))
    return result


def _tables(name: str, layer: ExportLayer, planes: int) -> Tables:
    shape, threshold = layer.shape, layer.threshold
    bits = bit_planes(layer.weight, shape.weight_bits)
    groups = layer.weight.shape[1]
    if layer.previous is None:
        groups = 1
        ones = bits.sum(axis=(2, 3)).T @ 2 ** np.arange(shape.weight_bits)
        threshold = threshold - (2**planes - 1) * ones
    bits = bits.reshape(shape.weight_bits * shape.outputs, groups, -1)
    each = shape.outputs * len(threshold)
    threshold = threshold.transpose(1, 2, 0).reshape(threshold.shape[1], each)
    return Tables(name, shape, layer.previous, planes, bits, threshold)
