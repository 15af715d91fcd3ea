"""Batch norm and Sign as a comparison of integers (of running a BNN, Alg. 5; NIPS Alg. 4).

Evaluation computes y = (v - mean) · scale + shift in float64, v = s / d in a hidden layer and
v = (p·s + q·ones) / d in the first, and takes Sign(y), which is y >= 0, or of k bits the code, the
number of levels that y reaches. Every operation rounds monotonically, so the sums s with
y >= level are all those from some t on, or up to it where scale < 0. t is found by bisection *of
that very arithmetic*, not by solving for it, which may round to the other side; then every sum that
can occur is tried.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnnrun.gemm.compiled import kernel, njit, prange

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """A batch norm in evaluation, after the products of (p·x + q) / d.

    Attributes:
        mean, scale, shift: (N,) float64
        p, q, d: of the input; 1, 0 and n_a n_w in a hidden layer
        ones:    (N,) float64, sum of the weights that the input's q goes to
    """

    mean: Floats
    scale: Floats
    shift: Floats
    p: float
    q: float
    d: float
    ones: Floats

    def __call__(self, s: NDArray[np.int64]) -> Floats:
        """y (N,) of pre-activations s (N,) int64."""
        v = s.astype(np.float64)
        y: Floats = _evaluate.py_func(v, self.mean, self.scale, self.shift, self.p, self.q, self.d,
                                      self.ones)  # fmt: skip
        return y


@njit(error_model="numpy")
def _evaluate(s, mean, scale, shift, p, q, d, ones):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Batch norm of evaluation, of arrays and in a kernel: each operation rounds once."""
    return ((p * s + q * ones) / d - mean) * scale + shift


def fold(
    norm: Affine, largest: int, level: float = 0.0
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(t, flip): y >= level where s >= t, or s <= t where `flip`, for integers s, |s| <= largest.

    A channel with scale 0 is constant: t lies past one end of the sums.
    """
    flip = norm.scale < 0
    low = np.full(len(flip), -largest - 1, np.int64)  # the first s without a bit ...
    high = np.full(len(flip), largest + 1, np.int64)  # ... and the first with one, or the reverse
    while np.any(high - low > 1):
        middle = (low + high) // 2
        on = norm(middle) >= level
        below = np.where(flip, on, ~on)
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(flip, low, high), flip


def first_difference(
    norm: Affine, t: NDArray[np.int64], flip: NDArray[np.bool_], largest: int, level: float = 0.0
) -> tuple[int, int] | None:
    """(channel, sum) where the comparison is not y >= level; None: it is for all |s| <= largest.

    Tries every integer s, also those of the wrong parity, which do not occur.
    """
    differences = _differences(norm.mean, norm.scale, norm.shift, norm.p, norm.q, norm.d, norm.ones,
                         t, flip, largest, level)  # fmt: skip
    channels = np.flatnonzero(differences <= largest)
    return (int(channels[0]), int(differences[channels[0]])) if len(channels) else None


@kernel(error_model="numpy")
def _differences(mean, scale, shift, p, q, d, ones, t, flip, largest, level):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """The lowest s of each channel where the comparison is wrong, or largest + 1."""
    lowest_wrong = np.full(len(t), largest + 1)
    for n in prange(len(t)):
        wrong = largest + 1
        for s in range(largest, -largest - 1, -1):
            y = _evaluate(np.float64(s), mean[n], scale[n], shift[n], p, q, d, ones[n])
            on = y >= level
            wrong = s if on != ((s <= t[n]) if flip[n] else (s >= t[n])) else wrong
        lowest_wrong[n] = wrong
    return lowest_wrong
