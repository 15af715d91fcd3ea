"""XNOR-popcount products of ±1 matrices on the processor: operands in layout, threads' tasks.

s = A · Wᵀ = K - 2 · popc(a ^ w),  or the bits s >= t
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.gemm import cpu
from bnnrun.gemm.bits import LANES, Words, aligned, popcount_thresholds, to_panels, words
from bnnrun.gemm.compiled import thread_count


@dataclass(frozen=True)
class Panels:
    """W in the layout that the kernels read.

    Attributes:
        data: (ceil(N / 16), kw, 16) uint32
        n, k: columns and length of the product
    """

    data: Words
    n: int
    k: int

    @property
    def kw(self) -> int:
        """Words of a row, a multiple of 4."""
        return int(self.data.shape[1])

    @property
    def width(self) -> int:
        """Columns, with those that pad the last panel."""
        return int(self.data.shape[0]) * LANES


def row_words(k: int) -> int:
    """Words of a row of `k` bits as the kernels read it: a multiple of 4."""
    return -(-words(k) // cpu.UNIT_WORDS) * cpu.UNIT_WORDS


def encode_weights(w: Words, k: int) -> Panels:
    """(N, words) uint32 -> Panels."""
    return Panels(to_panels(w, row_words(k)), w.shape[0], k)


def encode_rows(a: Words, k: int) -> Words:
    """(M, words) uint32 -> the same rows, padded with zeros to (padded M, kw)."""
    rows = aligned((padded_rows(len(a)), row_words(k)), np.uint32)
    rows[: len(a), : a.shape[1]] = a
    return rows


def padded_rows(m: int) -> int:
    """`m` rounded up to the rows that the kernels compute."""
    return -(-m // cpu.TILE_ROWS) * cpu.TILE_ROWS


def tasks(m: int, panels: int) -> int:
    """Panels of a task, so that every thread gets tasks; for m rows and `panels` panels."""
    wanted = 4 * thread_count()
    bands = max(1, -(-m // cpu.BAND_ROWS))
    return max(1, panels // max(1, -(-wanted // bands)))


def empty_out(a: Words, w: Panels) -> NDArray[np.int32]:
    """An output buffer of `multiply`, to be used for several calls."""
    return aligned((len(a), w.width), np.int32)


def empty_bits(a: Words, w: Panels) -> NDArray[np.uint16]:
    """An output buffer of `multiply_to_bits`, to be used for several calls."""
    return np.zeros((len(a), 2 * words(w.n)), np.uint16)


def multiply(
    a: Words, w: Panels, m: int, out: NDArray[np.int32] | None = None
) -> NDArray[np.int32]:
    """s = A · Wᵀ.

    Shapes:
        a:       (padded m, kw) uint32, from `encode_rows`
        out:     from `empty_out`; a new one costs as much as a short product
        returns  (m, N) int32, a view of `out`
    """
    check(a, w, m)
    out = _checked(out, empty_out, a, w)
    base = np.full(w.width, w.k, np.int32)
    panels = tasks(len(a), len(w.data))
    cpu.dense(
        a.ravel(), w.kw, len(a), w.data.ravel(), w.kw, cpu.ALGORITHM_BITS, 0, panels, base,
        out.ravel(), w.width,
    )  # fmt: skip
    return out[:m, : w.n]


def multiply_to_bits(
    a: Words, w: Panels, m: int, t: NDArray[np.int32], out: NDArray[np.uint16] | None = None
) -> Words:
    """Bits of s >= t.

    Shapes:
        t:       (N,) int32
        out:     from `empty_bits`
        returns  (m, ceil(N / 32)) uint32, a view of `out`
    """
    check(a, w, m)
    thresholds = np.full(w.width, -1, np.int32)
    thresholds[: w.n] = popcount_thresholds(t, w.k)
    out = _checked(out, empty_bits, a, w)
    out[:, len(w.data) :] = 0  # half a word that no panel writes
    panels = tasks(len(a), len(w.data))
    cpu.dense_bits(
        a.ravel(), w.kw, len(a), w.data.ravel(), w.kw, cpu.ALGORITHM_BITS, 0, panels, thresholds,
        out.ravel(), out.shape[1],
    )  # fmt: skip
    return out[:m].view(np.uint32)


def check(a: Words, w: Panels, m: int) -> None:
    """Raise ValueError unless `a` has the shape, dtype and layout of a left operand of `w`."""
    if a.dtype != np.uint32 or not a.flags.c_contiguous or a.shape != (padded_rows(m), w.kw):
        raise ValueError(
            f"A is {a.dtype} {a.shape}: expected contiguous uint32 {(padded_rows(m), w.kw)} as "
            "`encode_rows` gives it"
        )


def _checked(out: Any, empty: Callable[[Words, Panels], NDArray[Any]], a: Words, w: Panels) -> Any:
    """`out`, or a new buffer if it is None; ValueError if `out` is not one that `empty` returns."""
    if out is None:
        return empty(a, w)
    expected = empty(a[:0], w)
    if (
        out.dtype != expected.dtype
        or out.shape != (len(a), expected.shape[1])
        or not out.flags.c_contiguous
    ):
        raise ValueError(
            f"out is {out.dtype} {out.shape}: expected contiguous {expected.dtype} "
            f"{(len(a), expected.shape[1])}, as `{empty.__name__}` gives it"
        )
    return out
