"""Integer scores that order the classes as the trained network's float64 scores do.

A score is a · s + b of the output layer's sum s, with a and b the trained scale (divided by the
layer's unit) and shift times a power of two, rounded. Rounding may change an order, so every sum
that can occur is tried: the integer scores of any two classes must compare as the float64 scores
do, equal ones too, because argmax takes the first of equal scores.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bnnrun.errors import InputError
from bnnrun.runtime.model import PackedLayer

Integers = NDArray[np.int64]
SMALLEST_SHIFT = -1100  # powers of two below float64's smallest number


@dataclass(frozen=True)
class Scores:
    """Integer scores a · s + b.

    Attributes:
        bits: 32 or 64, of the type that holds a · s, a · s + b and b
        a, b: (classes,) int64
    """

    bits: int
    a: Integers
    b: Integers


def integer_scores(layer: PackedLayer) -> Scores:
    """The narrowest integer scores of an output layer that order its classes as it does.

    Raises:
        InputError: neither 32 nor 64 bits do; the two sums are named
    """
    most_sum = layer.shape.k * layer.shape.unit
    sums = np.arange(-most_sum, most_sum + 1, 2, dtype=np.int64)
    trained = _Trained(layer, sums)
    for bits, most in ((32, 31), (64, 62)):
        largest = _largest_shift(layer, most_sum, most)
        for shift in range(largest, largest - bits, -1):
            a, b = _rounded(layer, shift)
            difference = trained.difference(a[:, None] * sums + b[:, None])
            if difference is None:
                return Scores(bits, a, b)
            if shift == largest:
                (m, s), (n, u) = difference
    raise InputError(
        f"{layer.shape.name}: no integer scores of 64 bits order its classes as trained: class {m} "
        f"at the sum {s} and class {n} at the sum {u}"
    )


class _Trained:
    """The float64 scores of all sums, in ascending order."""

    def __init__(self, layer: PackedLayer, sums: Integers) -> None:
        scores = layer.scores(sums[:, None]).T  # (classes, sums)
        self.sums = sums
        self.order = np.argsort(scores, axis=None, kind="stable")
        self.classes = self.order // len(sums)
        ascending = scores.ravel()[self.order]
        # Elements with the same score form a group.
        self.group = np.concatenate([[0], np.cumsum(ascending[1:] != ascending[:-1])])

    def difference(self, integers: Integers) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """((class, sum), (class, sum)) of two classes that compare otherwise; None: no two do."""
        values = integers.ravel()[self.order]
        for at in self._suspects(values):
            others = self.classes != self.classes[at]
            lower, same = self.group < self.group[at], self.group == self.group[at]
            lower[at:] = False
            wrong = others & ((lower & (values >= values[at])) | (same & (values != values[at])))
            if wrong.any():
                return self._name(int(np.argmax(wrong))), self._name(int(at))
        return None

    def _suspects(self, values: Integers) -> NDArray[np.intp]:
        """Elements that are no larger than one of a lower group, or unequal to one of their own."""
        starts = np.flatnonzero(np.diff(self.group, prepend=-1))
        lowest, highest = (f.reduceat(values, starts) for f in (np.minimum, np.maximum))
        below = np.concatenate([[np.iinfo(np.int64).min], np.maximum.accumulate(highest)[:-1]])
        wrong = (values <= below[self.group]) | (lowest != highest)[self.group]
        return np.flatnonzero(wrong)

    def _name(self, at: int) -> tuple[int, int]:
        place = int(self.order[at])
        return place // len(self.sums), int(self.sums[place % len(self.sums)])


def _rounded(layer: PackedLayer, shift: int) -> tuple[Integers, Integers]:
    """a and b: scale / unit and shift - mean · scale, times 2^shift, each rounded once."""
    factor = Fraction(2) ** shift
    rows = zip(layer.mean.tolist(), layer.scale.tolist(), layer.shift.tolist(), strict=True)
    pairs = [
        (round(Fraction(scale) / layer.shape.unit * factor),
         round((Fraction(offset) - Fraction(mean) * Fraction(scale)) * factor))
        for mean, scale, offset in rows
    ]  # fmt: skip
    a, b = zip(*pairs, strict=True)
    return np.array(a, np.int64), np.array(b, np.int64)


def _largest_shift(layer: PackedLayer, most_sum: int, bits: int) -> int:
    """The largest power of two with |a| · most_sum + |b| < 2^bits."""
    largest = max(
        abs(Fraction(scale)) * layer.shape.k
        + abs(Fraction(offset) - Fraction(mean) * Fraction(scale))
        for mean, scale, offset in zip(layer.mean.tolist(), layer.scale.tolist(),
                                       layer.shift.tolist(), strict=True)
    )  # fmt: skip
    if largest == 0:
        return 0
    # |a| most_sum + |b| grows by at most (most_sum + 1) / 2 when it is rounded.
    limit = Fraction(2**bits - 1 - (most_sum + 1))
    shift = 0
    while largest * Fraction(2) ** (shift + 1) <= limit:
        shift += 1
    while largest * Fraction(2) ** shift > limit and shift > SMALLEST_SHIFT:
        shift -= 1
    return shift
