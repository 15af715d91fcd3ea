"""Products of rows of A with panels of W, whose results stay in registers until they are finished.

Rows of A lie as they were packed: `kw` words a bit plane. W is laid out in panels of sixteen
columns (`bits.to_panels`), word by word, so that one vector holds the same word of sixteen columns:
a word of A is broadcast, and no sum over lanes is ever needed.

The accumulators of a row with a panel, sixteen lanes, are

    d = popc(a ^ w)                                        rows of bits
    d = sum of 2^(n + m) · popc(plane n of a ^ plane m of w)    bit planes
    d = sum of products                                    rows of bytes, signed bytes of W

Two popcount algorithms; ALGORITHM_BITS is the faster one on this processor:

* ALGORITHM_POPCOUNT: a popcount instruction for each word. Needs a vector popcount. A carry-save
  adder before it takes 5 operations for two words instead of 6, but was slower where it was
  measured (Zen 4).
* ALGORITHM_ADDERS: four levels of carry-save adders (Harley-Seal), then one popcount for sixteen
  words. For processors where a vector popcount takes several instructions.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.gemm.bits import LANES
from bnnrun.gemm.compiled import njit
from bnnrun.gemm.vector import (
    HAS_POPCOUNT,
    add,
    add_byte_products,
    add_bytes,
    add_weighted_bytes,
    broadcast,
    carry,
    carry_out,
    load,
    popcount,
    popcount_bytes,
    xor,
    xor3,
    zero,
)

TILE_ROWS = TILE_PANELS = 4  # rows of A and panels of W that are multiplied together
UNIT_WORDS = 4  # the words of a row, and of a panel's column, are a multiple of it
FLUSH_WORDS = 31 * 16  # words after which a popcount held in a byte could overflow

# Algorithms that multiply rows by panels; ALGORITHM_BYTES multiplies bytes by signed bytes.
ALGORITHM_ADDERS, ALGORITHM_POPCOUNT, ALGORITHM_BYTES = 0, 1, 2
ALGORITHM_BITS = ALGORITHM_POPCOUNT if HAS_POPCOUNT else ALGORITHM_ADDERS


def product(finish: Callable[..., None]) -> Any:
    """A compiled function that multiplies rows by panels and hands the accumulators to `finish`.

    Its arguments are

        a, i, stride:           rows of A, the first at a[i], `stride` words apart; those past the
                                last may be read, to a multiple of TILE_ROWS
        row_begin, row_end:     their numbers, for `finish`
        w, panel_begin, panel_end: panels of W
        size:                   words of a panel
        kw:                     words of a plane, for each of its columns: a multiple of UNIT_WORDS,
                                any number with ALGORITHM_BYTES
        pairs:                  of bit planes, as from `plane_pairs`
        algorithm:              ALGORITHM_ADDERS, ALGORITHM_POPCOUNT or ALGORITHM_BYTES
        target:                 a tuple

    Args:
        finish: (d0, d1, d2, d3, row, rows, panel, *target): takes the accumulators of `rows` rows,
                one to four, from `row` on; compiled with forceinline
    """
    by_popcount = _tiles(_add_popcount, finish)
    by_bytes = _tiles(add_byte_products, finish)
    by_adders = _adders(finish)

    @njit(forceinline=True)
    def multiply(
        a, i, stride, row_begin, row_end, w, panel_begin, panel_end, size, kw, pairs, algorithm,
        target,
    ):  # fmt: skip
        for p in range(panel_begin, panel_end, TILE_PANELS):
            panels = min(TILE_PANELS, panel_end - p)
            if algorithm == ALGORITHM_POPCOUNT:
                by_popcount(a, i, stride, row_begin, row_end, w, p, panels, size, pairs, kw, target)
            elif algorithm == ALGORITHM_BYTES:
                by_bytes(a, i, stride, row_begin, row_end, w, p, panels, size, pairs, kw, target)
            else:
                by_adders(a, i, stride, row_begin, row_end, w, p, panels, size, pairs, kw, target)

    return multiply


@njit(forceinline=True)
def _add_popcount(n, a, w):
    """n + popc(a ^ w), lane by lane."""
    return add(n, popcount(xor(a, w)))


@njit(forceinline=True)
def _double(n0, n1, n2, n3):
    return add(n0, n0), add(n1, n1), add(n2, n2), add(n3, n3)


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


def _tiles(add_product: Callable[..., Any], finish: Callable[..., None]) -> Any:
    """Multiply by one to TILE_PANELS panels, word by word.

    Sixteen accumulators stay in registers: a word of W is loaded once for four rows, a word of A
    once for four panels. With fewer the loads take longer than the arithmetic. Written to memory
    they would be read back at once, behind stores of results that wait for memory.

    Args:
        add_product: (n, word of A in every lane, word of W) -> n + the product of the words
    """

    @njit(forceinline=True)
    def four_by_four(a, i, stride, row, w, j, size, p, pairs, kw, target):
        n00 = n01 = n02 = n03 = n10 = n11 = n12 = n13 = zero()
        n20 = n21 = n22 = n23 = n30 = n31 = n32 = n33 = zero()
        for pair in range(len(pairs)):
            if pairs[pair, 2]:
                n00, n01, n02, n03 = _double(n00, n01, n02, n03)
                n10, n11, n12, n13 = _double(n10, n11, n12, n13)
                n20, n21, n22, n23 = _double(n20, n21, n22, n23)
                n30, n31, n32, n33 = _double(n30, n31, n32, n33)
            i0, j0 = i + pairs[pair, 0], j + pairs[pair, 1]
            i1, i2, i3 = i0 + stride, i0 + 2 * stride, i0 + 3 * stride
            j1, j2, j3 = j0 + size, j0 + 2 * size, j0 + 3 * size
            for k in range(kw):
                w0, w1 = load(w, j0 + 16 * k), load(w, j1 + 16 * k)
                w2, w3 = load(w, j2 + 16 * k), load(w, j3 + 16 * k)
                x = broadcast(a, i0 + k)
                n00, n01 = add_product(n00, x, w0), add_product(n01, x, w1)
                n02, n03 = add_product(n02, x, w2), add_product(n03, x, w3)
                x = broadcast(a, i1 + k)
                n10, n11 = add_product(n10, x, w0), add_product(n11, x, w1)
                n12, n13 = add_product(n12, x, w2), add_product(n13, x, w3)
                x = broadcast(a, i2 + k)
                n20, n21 = add_product(n20, x, w0), add_product(n21, x, w1)
                n22, n23 = add_product(n22, x, w2), add_product(n23, x, w3)
                x = broadcast(a, i3 + k)
                n30, n31 = add_product(n30, x, w0), add_product(n31, x, w1)
                n32, n33 = add_product(n32, x, w2), add_product(n33, x, w3)
        finish(n00, n10, n20, n30, row, 4, p, *target)
        finish(n01, n11, n21, n31, row, 4, p + 1, *target)
        finish(n02, n12, n22, n32, row, 4, p + 2, *target)
        finish(n03, n13, n23, n33, row, 4, p + 3, *target)

    @njit
    def row_by_four(a, i, row, w, j, size, p, pairs, kw, target):
        n0 = n1 = n2 = n3 = none = zero()
        for pair in range(len(pairs)):
            if pairs[pair, 2]:
                n0, n1, n2, n3 = _double(n0, n1, n2, n3)
            i0, j0 = i + pairs[pair, 0], j + pairs[pair, 1]
            j1, j2, j3 = j0 + size, j0 + 2 * size, j0 + 3 * size
            for k in range(kw):
                x = broadcast(a, i0 + k)
                n0 = add_product(n0, x, load(w, j0 + 16 * k))
                n1 = add_product(n1, x, load(w, j1 + 16 * k))
                n2 = add_product(n2, x, load(w, j2 + 16 * k))
                n3 = add_product(n3, x, load(w, j3 + 16 * k))
        finish(n0, none, none, none, row, 1, p, *target)
        finish(n1, none, none, none, row, 1, p + 1, *target)
        finish(n2, none, none, none, row, 1, p + 2, *target)
        finish(n3, none, none, none, row, 1, p + 3, *target)

    @njit
    def four_by_panel(a, i, stride, row, rows, w, j, p, pairs, kw, target):
        n0 = n1 = n2 = n3 = zero()
        for pair in range(len(pairs)):
            if pairs[pair, 2]:
                n0, n1, n2, n3 = _double(n0, n1, n2, n3)
            i0, j0 = i + pairs[pair, 0], j + pairs[pair, 1]
            i1, i2, i3 = i0 + stride, i0 + 2 * stride, i0 + 3 * stride
            for k in range(kw):
                x = load(w, j0 + 16 * k)
                n0 = add_product(n0, broadcast(a, i0 + k), x)
                n1 = add_product(n1, broadcast(a, i1 + k), x)
                n2 = add_product(n2, broadcast(a, i2 + k), x)
                n3 = add_product(n3, broadcast(a, i3 + k), x)
        finish(n0, n1, n2, n3, row, rows, p, *target)

    @njit
    def by_panels(a, i, stride, row_begin, row_end, w, p, panels, size, pairs, kw, target):
        if panels == TILE_PANELS:
            whole = row_end - (row_end - row_begin) % TILE_ROWS
            for row in range(row_begin, whole, TILE_ROWS):
                four_by_four(a, i, stride, row, w, p * size, size, p, pairs, kw, target)
                i += TILE_ROWS * stride
            for row in range(whole, row_end):
                row_by_four(a, i, row, w, p * size, size, p, pairs, kw, target)
                i += stride
            return
        for row in range(row_begin, row_end, TILE_ROWS):
            rows = min(TILE_ROWS, row_end - row)
            for q in range(p, p + panels):
                four_by_panel(a, i, stride, row, rows, w, q * size, q, pairs, kw, target)
            i += TILE_ROWS * stride

    return by_panels


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
def _popcount_xor2(a, i0, i1, w, j, kw):
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


def _adders(finish: Callable[..., None]) -> Any:
    """As `_tiles`, by carry-save adders."""

    @njit
    def by_panels(a, i, stride, row_begin, row_end, w, p, panels, size, pairs, kw, target):
        for row in range(row_begin, row_end, TILE_ROWS):
            rows = min(TILE_ROWS, row_end - row)
            for q in range(p, p + panels):
                n0 = n1 = n2 = n3 = zero()
                for pair in range(len(pairs)):
                    if pairs[pair, 2]:
                        n0, n1, n2, n3 = _double(n0, n1, n2, n3)
                    i0, j0 = i + pairs[pair, 0], q * size + pairs[pair, 1]
                    i1, i2, i3 = i0 + stride, i0 + 2 * stride, i0 + 3 * stride
                    d0, d1 = _popcount_xor2(a, i0, i1, w, j0, kw)
                    d2, d3 = _popcount_xor2(a, i2, i3, w, j0, kw)
                    n0, n1, n2, n3 = add(n0, d0), add(n1, d1), add(n2, d2), add(n3, d3)
                finish(n0, n1, n2, n3, row, rows, q, *target)
            i += TILE_ROWS * stride

    return by_panels
