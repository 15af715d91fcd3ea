"""XNOR-popcount products in which some elements of a row of A are 0: what dropout leaves.

    s[m, n] = popc(kept[m]) - 2 popc((a[m] ^ w[n]) & kept[m])

A third of the work of bytes, and the same whole numbers. Layouts as in cpu.py.
"""

from numba import njit, prange

from bnnrun.gemm.cpu import FLUSH, add_up, full_adder
from bnnrun.gemm.floats import scale, to_floats
from bnnrun.gemm.vector import (
    add,
    add_bytes,
    add_weighted_bytes,
    broadcast,
    differ,
    fill,
    load,
    popcount_bytes,
    store,
    subtract,
    zero,
)

BAND = 32  # rows of a task


@njit(forceinline=True)
def _word(a, kept, i, w, j):
    """What differs in one word."""
    return differ(broadcast(a, i), load(w, j), broadcast(kept, i))


@njit(forceinline=True)
def _four(ones, twos, a, kept, i, w, j):
    """Four words: (ones, twos, carry of weight 4)."""
    t, x = full_adder(ones, _word(a, kept, i, w, j), _word(a, kept, i + 1, w, j + 16))
    ones, y = full_adder(t, _word(a, kept, i + 2, w, j + 32), _word(a, kept, i + 3, w, j + 48))
    twos, z = full_adder(twos, x, y)
    return ones, twos, z


@njit(forceinline=True)
def _differing(a, kept, i, w, j, kw):
    """Bits in which the kept part of a row differs from sixteen columns."""
    ones = twos = fours = eights = total = quads = zero()
    k, whole = 0, kw - kw % 16
    while k < whole:
        stop = min(whole, k + FLUSH)
        count = zero()
        while k < stop:
            ones, twos, p = _four(ones, twos, a, kept, i + k, w, j + 16 * k)
            ones, twos, q = _four(ones, twos, a, kept, i + k + 4, w, j + 16 * k + 64)
            fours, x = full_adder(fours, p, q)
            ones, twos, p = _four(ones, twos, a, kept, i + k + 8, w, j + 16 * k + 128)
            ones, twos, q = _four(ones, twos, a, kept, i + k + 12, w, j + 16 * k + 192)
            fours, y = full_adder(fours, p, q)
            eights, x = full_adder(eights, x, y)
            count = add_bytes(count, popcount_bytes(x))
            k += 16
        total = add_weighted_bytes(total, count, 16)
    while k < kw:
        ones, twos, p = _four(ones, twos, a, kept, i + k, w, j + 16 * k)
        quads = add_bytes(quads, popcount_bytes(p))
        k += 4
    return add_up(total, ones, twos, fours, eights, quads)


@njit(parallel=True, cache=True)
def masked_sums(a, kept, whole, m, w, kw, factor, across, out):
    """out[m, n] = factor · s[m, n] as float32.

    Shapes:
        a, kept: (m, kw) uint32, flat; kw a multiple of UNIT
        whole:   (m,) int32, popc of each row of `kept`
        w:       (panels, kw, 16) uint32, flat
        out:     (m, panels · 16) float32, flat
        across:  tasks that share the panels of a band of rows
    """
    panels = w.size // (16 * kw)
    each = (panels + across - 1) // across
    for task in prange((m + BAND - 1) // BAND * across):
        low, first = task // across * BAND, task % across * each
        for p in range(first, min(panels, first + each)):
            for r in range(low, min(m, low + BAND)):
                d = _differing(a, kept, r * kw, w, 16 * kw * p, kw)
                s = subtract(fill(whole[r]), add(d, d))
                store(out, 16 * (r * panels + p), scale(to_floats(s), factor))
