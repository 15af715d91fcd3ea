"""XNOR-popcount products in which some elements of a row of A are 0: what dropout leaves.

    s[m, n] = popc(kept[m]) - 2 popc((a[m] ^ w[n]) & kept[m])

A third of the work of bytes, and the same whole numbers. Layouts, and the two ways to count, as in
cpu.py.
"""

from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.cpu import COUNT, FLUSH, add_up, full_adder
from bnnrun.gemm.floats import scale, to_floats
from bnnrun.gemm.vector import (
    add,
    add_bytes,
    add_weighted_bytes,
    broadcast,
    differ,
    fill,
    load,
    popcount,
    popcount_bytes,
    store,
    subtract,
    zero,
)

BAND = 32  # rows of a task
PANELS = 4  # counted together, so that a word of a row is broadcast once for them


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


@njit(forceinline=True)
def _put(d, whole, factor, out, at):
    store(out, at, scale(to_floats(subtract(fill(whole), add(d, d))), factor))


@njit
def _by_adders(a, kept, whole, low, high, w, first, last, kw, factor, out, panels):
    for p in range(first, last):
        for r in range(low, high):
            d = _differing(a, kept, r * kw, w, 16 * kw * p, kw)
            _put(d, whole[r], factor, out, 16 * (r * panels + p))


@njit(forceinline=True)
def _count(n, x, y, z):
    """n + the bits of each lane in which x and y differ where z is set."""
    return add(n, popcount(differ(x, y, z)))


@njit
def _by_counts(a, kept, whole, low, high, w, first, last, kw, factor, out, panels):
    """Two rows at a time; an odd last one twice."""
    for p in range(first, last, PANELS):
        for r in range(low, high, 2):
            s = min(r + 1, high - 1)
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero()
            for k in range(kw):
                j = 16 * (kw * p + k)
                w0, w1 = load(w, j), load(w, j + 16 * kw)
                w2, w3 = load(w, j + 32 * kw), load(w, j + 48 * kw)
                x, z = broadcast(a, r * kw + k), broadcast(kept, r * kw + k)
                a0, a1 = _count(a0, x, w0, z), _count(a1, x, w1, z)
                a2, a3 = _count(a2, x, w2, z), _count(a3, x, w3, z)
                x, z = broadcast(a, s * kw + k), broadcast(kept, s * kw + k)
                b0, b1 = _count(b0, x, w0, z), _count(b1, x, w1, z)
                b2, b3 = _count(b2, x, w2, z), _count(b3, x, w3, z)
            at = 16 * (r * panels + p)
            _put(a0, whole[r], factor, out, at)
            _put(a1, whole[r], factor, out, at + 16)
            _put(a2, whole[r], factor, out, at + 32)
            _put(a3, whole[r], factor, out, at + 48)
            at = 16 * (s * panels + p)
            _put(b0, whole[s], factor, out, at)
            _put(b1, whole[s], factor, out, at + 16)
            _put(b2, whole[s], factor, out, at + 32)
            _put(b3, whole[s], factor, out, at + 48)


@kernel()
def masked_sums(a, kept, whole, m, w, kw, way, factor, across, out):
    """out[m, n] = factor · s[m, n] as float32.

    Shapes:
        a, kept: (m, kw) uint32, flat; kw a multiple of UNIT
        whole:   (m,) int32, popc of each row of `kept`
        w:       (panels, kw, 16) uint32, flat; a multiple of PANELS panels
        way:     ADDERS or COUNT
        out:     (m, panels · 16) float32, flat
        across:  tasks that share the panels of a band of rows
    """
    panels = w.size // (16 * kw)
    each = (panels // PANELS + across - 1) // across * PANELS
    for task in prange((m + BAND - 1) // BAND * across):
        low, first = task // across * BAND, task % across * each
        high, last = min(m, low + BAND), min(panels, first + each)
        if way == COUNT:
            _by_counts(a, kept, whole, low, high, w, first, last, kw, factor, out, panels)
        else:
            _by_adders(a, kept, whole, low, high, w, first, last, kw, factor, out, panels)
