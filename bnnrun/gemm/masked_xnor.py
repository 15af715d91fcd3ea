"""Masked XNOR-popcount products: rows of A hold -1, 0 and +1, as dropout leaves them.

    s[m, n] = popc(mask[m]) - 2 popc((a[m] ^ w[n]) & mask[m])

`mask` has a 1 bit where `a` is not 0. The result equals that of a product of bytes and takes a
third of the time. Layouts and popcount algorithms are those of cpu.py.
"""

from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.simd_f32 import scale, to_floats
from bnnrun.gemm.tiles import ALGORITHM_POPCOUNT, FLUSH_WORDS, full_adder, sum_adders
from bnnrun.gemm.vector import (
    add,
    add_bytes,
    add_weighted_bytes,
    broadcast,
    fill,
    load,
    masked_xor,
    popcount,
    popcount_bytes,
    store,
    subtract,
    zero,
)

BAND_ROWS = 32  # rows of A in a task
TILE_PANELS = 4  # panels multiplied together: a word of A is broadcast once for all of them


@njit(forceinline=True)
def _masked_xor_word(a, mask, i, w, j):
    """(a ^ w) & mask of one word with sixteen columns."""
    return masked_xor(broadcast(a, i), load(w, j), broadcast(mask, i))


@njit(forceinline=True)
def _four(ones, twos, a, mask, i, w, j):
    """Add four words of (a ^ w) & mask: (ones, twos, carry of weight 4)."""
    t, x = full_adder(
        ones, _masked_xor_word(a, mask, i, w, j), _masked_xor_word(a, mask, i + 1, w, j + 16)
    )
    ones, y = full_adder(
        t, _masked_xor_word(a, mask, i + 2, w, j + 32), _masked_xor_word(a, mask, i + 3, w, j + 48)
    )
    twos, z = full_adder(twos, x, y)
    return ones, twos, z


@njit(forceinline=True)
def _masked_popcount_xor(a, mask, i, w, j, kw):
    """popc((a ^ w) & mask) of a row with sixteen columns, by carry-save adders."""
    ones = twos = fours = eights = total = quads = zero()
    k, unrolled_kw = 0, kw - kw % 16
    while k < unrolled_kw:
        stop = min(unrolled_kw, k + FLUSH_WORDS)
        byte_popcount = zero()
        while k < stop:
            ones, twos, p = _four(ones, twos, a, mask, i + k, w, j + 16 * k)
            ones, twos, q = _four(ones, twos, a, mask, i + k + 4, w, j + 16 * k + 64)
            fours, x = full_adder(fours, p, q)
            ones, twos, p = _four(ones, twos, a, mask, i + k + 8, w, j + 16 * k + 128)
            ones, twos, q = _four(ones, twos, a, mask, i + k + 12, w, j + 16 * k + 192)
            fours, y = full_adder(fours, p, q)
            eights, x = full_adder(eights, x, y)
            byte_popcount = add_bytes(byte_popcount, popcount_bytes(x))
            k += 16
        total = add_weighted_bytes(total, byte_popcount, 16)
    while k < kw:
        ones, twos, p = _four(ones, twos, a, mask, i + k, w, j + 16 * k)
        quads = add_bytes(quads, popcount_bytes(p))
        k += 4
    return sum_adders(total, ones, twos, fours, eights, quads)


@njit(forceinline=True)
def _put(d, mask_popcount, factor, out, at):
    store(out, at, scale(to_floats(subtract(fill(mask_popcount), add(d, d))), factor))


@njit
def _by_adders(
    a, mask, mask_popcount, row_begin, row_end, w, panel_begin, panel_end, kw, factor, out, panels
):
    for p in range(panel_begin, panel_end):
        for r in range(row_begin, row_end):
            d = _masked_popcount_xor(a, mask, r * kw, w, 16 * kw * p, kw)
            _put(d, mask_popcount[r], factor, out, 16 * (r * panels + p))


@njit(forceinline=True)
def _add_popcount(n, x, y, z):
    """n + popc((x ^ y) & z), lane by lane."""
    return add(n, popcount(masked_xor(x, y, z)))


@njit
def _by_popcount(
    a, mask, mask_popcount, row_begin, row_end, w, panel_begin, panel_end, kw, factor, out, panels
):
    """Two rows at a time; if their number is odd, the last row is computed twice."""
    for p in range(panel_begin, panel_end, TILE_PANELS):
        for r in range(row_begin, row_end, 2):
            s = min(r + 1, row_end - 1)
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero()
            for k in range(kw):
                j = 16 * (kw * p + k)
                w0, w1 = load(w, j), load(w, j + 16 * kw)
                w2, w3 = load(w, j + 32 * kw), load(w, j + 48 * kw)
                x, z = broadcast(a, r * kw + k), broadcast(mask, r * kw + k)
                a0, a1 = _add_popcount(a0, x, w0, z), _add_popcount(a1, x, w1, z)
                a2, a3 = _add_popcount(a2, x, w2, z), _add_popcount(a3, x, w3, z)
                x, z = broadcast(a, s * kw + k), broadcast(mask, s * kw + k)
                b0, b1 = _add_popcount(b0, x, w0, z), _add_popcount(b1, x, w1, z)
                b2, b3 = _add_popcount(b2, x, w2, z), _add_popcount(b3, x, w3, z)
            at = 16 * (r * panels + p)
            _put(a0, mask_popcount[r], factor, out, at)
            _put(a1, mask_popcount[r], factor, out, at + 16)
            _put(a2, mask_popcount[r], factor, out, at + 32)
            _put(a3, mask_popcount[r], factor, out, at + 48)
            at = 16 * (s * panels + p)
            _put(b0, mask_popcount[s], factor, out, at)
            _put(b1, mask_popcount[s], factor, out, at + 16)
            _put(b2, mask_popcount[s], factor, out, at + 32)
            _put(b3, mask_popcount[s], factor, out, at + 48)


@kernel()
def masked_xnor(a, mask, mask_popcount, m, w, kw, algorithm, factor, tasks_per_band, out):
    """out[m, n] = factor · s[m, n] as float32.

    Shapes:
        a, mask:        (m, kw) uint32, flat; kw a multiple of UNIT_WORDS
        mask_popcount:  (m,) int32, popc of each row of `mask`
        w:              (panels, kw, 16) uint32, flat; a multiple of TILE_PANELS panels
        algorithm:      ALGORITHM_ADDERS or ALGORITHM_POPCOUNT
        tasks_per_band: tasks that share the panels of a band of rows
        out:            (m, panels · 16) float32, flat
    """
    panels = w.size // (16 * kw)
    task_panels = (panels // TILE_PANELS + tasks_per_band - 1) // tasks_per_band * TILE_PANELS
    for task in prange((m + BAND_ROWS - 1) // BAND_ROWS * tasks_per_band):
        row_begin = task // tasks_per_band * BAND_ROWS
        panel_begin = task % tasks_per_band * task_panels
        row_end, panel_end = min(m, row_begin + BAND_ROWS), min(panels, panel_begin + task_panels)
        if algorithm == ALGORITHM_POPCOUNT:
            _by_popcount(
                a, mask, mask_popcount, row_begin, row_end, w, panel_begin, panel_end, kw, factor,
                out, panels,
            )  # fmt: skip
        else:
            _by_adders(
                a, mask, mask_popcount, row_begin, row_end, w, panel_begin, panel_end, kw, factor,
                out, panels,
            )  # fmt: skip
