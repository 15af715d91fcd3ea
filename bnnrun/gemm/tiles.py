"""Products of rows of A with panels of W, whose results stay in registers until they are finished.

Rows of A lie as they were packed: `kw` words a bit plane. W is laid out in panels of sixteen
columns (`bits.to_panels`), word by word, so that one vector holds the same word of sixteen columns:
a word of A is broadcast, and no sum over lanes is ever needed. A multiple of TILE_PANELS panels may
be read.

The accumulators of a row with a panel, sixteen lanes, are

    d = popc(a ^ w)                                        rows of bits
    d = popc((a ^ w) & mask)                               rows of bits, and a mask of each
    d = sum of 2^(n + m) · popc(plane n of a ^ plane m of w)    bit planes
    d = sum of products                                    rows of bytes, W int8

With a vector popcount, a word takes one instruction of it. A carry-save adder before it takes 5
operations for two words instead of 6, but was slower where it was measured (Zen 4). Without one,
four levels of carry-save adders (Harley-Seal) leave one popcount, of several instructions, for
sixteen words.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from bnnrun.gemm.bits import LANES, TILE_PANELS
from bnnrun.gemm.compiled import njit
from bnnrun.gemm.instructions import HAS_POPCOUNT
from bnnrun.gemm.micro_kernel import multiply_four_rows, multiply_row
from bnnrun.gemm.vector import (
    add,
    add_bytes,
    add_weighted_bytes,
    broadcast,
    carry,
    carry_out,
    load,
    popcount_bytes,
    xor3,
    zero,
)

TILE_ROWS = 4  # rows of A that are multiplied together
UNIT_WORDS = 4  # the words of a row, and of a panel's column, are a multiple of it
FLUSH_WORDS = 31 * 16  # words after which a popcount held in a byte could overflow


def plane_pairs(planes: int, weight_planes: int, kw: int) -> NDArray[np.int64]:
    """The products of a bit plane of A with one of W, in the order of Horner's rule.

    Pairs whose weights 2^(n + m) are equal stand on a diagonal. Diagonals go from the heaviest
    down; where one begins, the accumulators double.

    Shapes: returns (planes · weight_planes, 3): words to the plane of A, and of a panel of W;
    whether a diagonal but the first begins
    """
    pairs = []
    for diagonal in range(planes + weight_planes - 1):
        begins = diagonal > 0
        for n in range(max(0, diagonal - weight_planes + 1), min(planes, diagonal + 1)):
            pairs.append((n * kw, LANES * kw * (diagonal - n), begins))
            begins = False
    return np.array(pairs, np.int64)


@njit(forceinline=True)
def _two(ones, a, i, w, j):
    """Add two words of a ^ w to `ones`: (ones, carry of weight 2)."""
    t = xor3(ones, broadcast(a, i), load(w, j))
    s = xor3(t, broadcast(a, i + 1), load(w, j + 16))
    return s, carry(t, s, ones)


@njit(forceinline=True)
def full_adder(total, x, y):
    """Bitwise total + x + y: (sum, carry)."""
    s = xor3(total, x, y)
    return s, carry_out(s, total, x)


@njit(forceinline=True)
def _four(ones, twos, a, i, w, j):
    """Add four words of a ^ w: (ones, twos, carry of weight 4)."""
    ones, x = _two(ones, a, i, w, j)
    ones, y = _two(ones, a, i + 2, w, j + 32)
    twos, z = full_adder(twos, x, y)
    return ones, twos, z


@njit(forceinline=True)
def sum_adders(total, ones, twos, fours, eights, quads):
    """total + the bits left in the adders, each weighted by its level; `quads`, in bytes, is the
    popcount of the carries of weight 4 from the last words.

    Summed in bytes by Horner's rule; at most 8 · (1 + 2 + 4 + 8) + 4 · 24, so no byte overflows.
    """
    rest = popcount_bytes(eights)
    rest = add_bytes(add_bytes(rest, rest), add_bytes(popcount_bytes(fours), quads))
    rest = add_bytes(add_bytes(rest, rest), popcount_bytes(twos))
    rest = add_bytes(add_bytes(rest, rest), popcount_bytes(ones))
    return add_weighted_bytes(total, rest, 1)


@njit
def popcount_xor2(a, i0, i1, w, j, kw):
    """popc(a ^ w) of two rows with sixteen columns, by carry-save adders: two vectors."""
    o0 = t0 = f0 = e0 = n0 = q0 = zero()
    o1 = t1 = f1 = e1 = n1 = q1 = zero()
    k, unrolled_kw = 0, kw - kw % 16
    while k < unrolled_kw:
        stop = min(unrolled_kw, k + FLUSH_WORDS)
        c0 = c1 = zero()
        while k < stop:
            o0, t0, p0 = _four(o0, t0, a, i0 + k, w, j + 16 * k)
            o1, t1, p1 = _four(o1, t1, a, i1 + k, w, j + 16 * k)
            o0, t0, r0 = _four(o0, t0, a, i0 + k + 4, w, j + 16 * k + 64)
            o1, t1, r1 = _four(o1, t1, a, i1 + k + 4, w, j + 16 * k + 64)
            f0, x0 = full_adder(f0, p0, r0)
            f1, x1 = full_adder(f1, p1, r1)
            o0, t0, p0 = _four(o0, t0, a, i0 + k + 8, w, j + 16 * k + 128)
            o1, t1, p1 = _four(o1, t1, a, i1 + k + 8, w, j + 16 * k + 128)
            o0, t0, r0 = _four(o0, t0, a, i0 + k + 12, w, j + 16 * k + 192)
            o1, t1, r1 = _four(o1, t1, a, i1 + k + 12, w, j + 16 * k + 192)
            f0, y0 = full_adder(f0, p0, r0)
            f1, y1 = full_adder(f1, p1, r1)
            e0, x0 = full_adder(e0, x0, y0)
            e1, x1 = full_adder(e1, x1, y1)
            c0 = add_bytes(c0, popcount_bytes(x0))
            c1 = add_bytes(c1, popcount_bytes(x1))
            k += 16
        n0 = add_weighted_bytes(n0, c0, 16)
        n1 = add_weighted_bytes(n1, c1, 16)
    while k < kw:
        o0, t0, p0 = _four(o0, t0, a, i0 + k, w, j + 16 * k)
        o1, t1, p1 = _four(o1, t1, a, i1 + k, w, j + 16 * k)
        q0 = add_bytes(q0, popcount_bytes(p0))
        q1 = add_bytes(q1, popcount_bytes(p1))
        k += 4
    return sum_adders(n0, o0, t0, f0, e0, q0), sum_adders(n1, o1, t1, f1, e1, q1)


def product(
    finish: Callable[..., None],
    popcount_of_two_rows: Callable[..., Any] = popcount_xor2,
    *,
    whole_tiles: bool = False,
) -> Callable[..., None]:
    """A compiled function that multiplies rows by panels and hands the accumulators to `finish`.

    Its arguments are

        a:                      words of A; (words, masks) for the popcounts under a mask
        i, stride:              the first row's first word; words from row to row. Rows past the
                                last may be read, to a multiple of TILE_ROWS
        row_begin, row_end:     the rows' numbers, for `finish`
        w:                      panels of W, flat: uint32, or int8 where A has bytes
        panel_begin, panel_end: those that are multiplied; the first a multiple of TILE_PANELS
        size:                   elements of a panel
        kw:                     words of a plane, for each of its columns: a multiple of UNIT_WORDS,
                                any number of bytes
        pairs:                  of bit planes, as from `plane_pairs`
        target:                 a tuple

    Args:
        finish:               (d0, d1, d2, d3, row, rows, panel, *target): takes the accumulators of
                              `rows` rows, one or four, from `row` on; compiled with forceinline
        popcount_of_two_rows: as popcount_xor2, where there is no vector popcount
        whole_tiles:          rows are always a multiple of TILE_ROWS
    """

    @njit
    def by_tiles(
        a, i, stride, row_begin, row_end, w, panel_begin, panel_end, size, kw, pairs, target
    ):
        whole = row_end - (row_end - row_begin) % TILE_ROWS
        for p in range(panel_begin, panel_end, TILE_PANELS):
            panels, at = min(TILE_PANELS, panel_end - p), i
            for row in range(row_begin, whole, TILE_ROWS):
                n = multiply_four_rows(a, at, stride, w, p * size, size, kw, pairs)
                finish(n[0], n[4], n[8], n[12], row, 4, p, *target)
                if panels > 1:
                    finish(n[1], n[5], n[9], n[13], row, 4, p + 1, *target)
                if panels > 2:
                    finish(n[2], n[6], n[10], n[14], row, 4, p + 2, *target)
                if panels > 3:
                    finish(n[3], n[7], n[11], n[15], row, 4, p + 3, *target)
                at += TILE_ROWS * stride
            if whole_tiles:
                continue
            for row in range(whole, row_end):
                n, none = multiply_row(a, at, stride, w, p * size, size, kw, pairs), zero()
                finish(n[0], none, none, none, row, 1, p, *target)
                if panels > 1:
                    finish(n[1], none, none, none, row, 1, p + 1, *target)
                if panels > 2:
                    finish(n[2], none, none, none, row, 1, p + 2, *target)
                if panels > 3:
                    finish(n[3], none, none, none, row, 1, p + 3, *target)
                at += stride

    @njit
    def by_adders(
        a, i, stride, row_begin, row_end, w, panel_begin, panel_end, size, kw, pairs, target
    ):
        for row in range(row_begin, row_end, TILE_ROWS):
            rows = min(TILE_ROWS, row_end - row)
            for q in range(panel_begin, panel_end):
                n0 = n1 = n2 = n3 = zero()
                for pair in range(len(pairs)):
                    if pairs[pair, 2]:
                        n0, n1, n2, n3 = add(n0, n0), add(n1, n1), add(n2, n2), add(n3, n3)
                    i0, j0 = i + pairs[pair, 0], q * size + pairs[pair, 1]
                    i1, i2, i3 = i0 + stride, i0 + 2 * stride, i0 + 3 * stride
                    d0, d1 = popcount_of_two_rows(a, i0, i1, w, j0, kw)
                    d2, d3 = popcount_of_two_rows(a, i2, i3, w, j0, kw)
                    n0, n1, n2, n3 = add(n0, d0), add(n1, d1), add(n2, d2), add(n3, d3)
                finish(n0, n1, n2, n3, row, rows, q, *target)
            i += TILE_ROWS * stride

    if HAS_POPCOUNT:
        return by_tiles

    def multiply(
        a, i, stride, row_begin, row_end, w, panel_begin, panel_end, size, kw, pairs, target
    ): ...

    @overload(multiply)
    def by_elements(
        a, i, stride, row_begin, row_end, w, panel_begin, panel_end, size, kw, pairs, target
    ):
        return (by_adders if w.dtype == types.uint32 else by_tiles).py_func

    return multiply
