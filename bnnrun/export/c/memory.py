"""The memory of a network in C: scratch by word size, flash by layer."""

from dataclasses import dataclass

import numpy as np

from bnnrun.export.c.scores import Scores
from bnnrun.export.c.tables import Tables

WORD_BITS = (8, 16, 32, 64)


@dataclass(frozen=True)
class Scratch:
    """The scratch memory: two maps of bits that layers write in turns, then a patch.

    The bit planes of the first layer's pixels lie where the second layer writes its map.
    """

    layers: list[Tables]

    def even(self, word_bits: int) -> int:
        """Words of the first, third, ... layer's map."""
        return max(layer.map_words(word_bits) for layer in self.layers[::2])

    def odd(self, word_bits: int) -> int:
        """Words of the second, fourth, ... layer's map, and of bit planes before it."""
        maps = max(layer.map_words(word_bits) for layer in self.layers[1::2])
        return max(maps, self.layers[0].buffer_words(word_bits))

    def words(self, word_bits: int) -> int:
        """Words of all scratch memory."""
        patch = max(layer.buffer_words(word_bits) for layer in self.layers[1:])
        return self.even(word_bits) + self.odd(word_bits) + patch


@dataclass(frozen=True)
class Cost:
    """Bytes of flash and of scratch memory, and words that an image compares."""

    flash: int
    scratch: int
    operations: int


def layer_cost(layer: Tables, layers: list[Tables], scores: Scores, word_bits: int) -> Cost:
    """Of one layer in the network of `layers`; its scratch is its map and its buffer."""
    return Cost(
        _flash_bytes(layer, layers, scores, word_bits),
        (layer.map_words(word_bits) + layer.buffer_words(word_bits)) * word_bits // 8,
        layer.operations(word_bits),
    )


def cost(layers: list[Tables], scores: Scores, word_bits: int) -> Cost:
    """Of a whole network, whose layers share their scratch memory."""
    each = [layer_cost(layer, layers, scores, word_bits) for layer in layers]
    scratch = Scratch(layers).words(word_bits) * word_bits // 8
    return Cost(sum(c.flash for c in each), scratch, sum(c.operations for c in each))


def _flash_bytes(layer: Tables, layers: list[Tables], scores: Scores, word_bits: int) -> int:
    """Bytes of a layer's constants in the network of `layers`."""
    weights = len(layer.weights) * layer.row_words(word_bits) * word_bits // 8
    if layer.shape.last:
        return weights + 2 * len(scores.a) * scores.bits // 8
    alike = layers[:1] if layer.previous is None else layers[1:-1]
    border_classes = 16 if layer.function == "first_conv" else 0
    return weights + layer.threshold.size * threshold_bits(alike) // 8 + border_classes


def threshold_bits(layers: list[Tables]) -> int:
    """16 where the thresholds of all these layers fit that many bits, else 32."""
    largest = max(np.abs(layer.threshold).max(initial=0) for layer in layers)
    return 16 if largest < 2**15 else 32
