"""XNOR-popcount products on the processor: the kernels of fully connected layers.

    s = K - 2 d,  or bits d <= t, or codes of several t

with the accumulators d of tiles.py.
"""

import numpy as np

from bnnrun.gemm.bits import LANES
from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.tiles import product
from bnnrun.gemm.vector import (
    add,
    at_most,
    compile_small,
    load,
    store,
    subtract,
)

BAND_ROWS = 64  # rows of A in a task
# Of threshold j: bit 16 i is set where 2^i divides j + 1.
PLANES = np.array(
    [sum(1 << 16 * i for i in range(4) if (j + 1) % 2**i == 0) for j in range(15)], np.uint64
)


@njit(forceinline=True)
def _subtract(d0, d1, d2, d3, row, rows, p, base, out, width):
    """Write base - 2 d to the columns of panel p."""
    at, b = row * width + 16 * p, load(base, 16 * p)
    store(out, at, subtract(b, add(d0, d0)))
    if rows > 1:
        store(out, at + width, subtract(b, add(d1, d1)))
    if rows > 2:
        store(out, at + 2 * width, subtract(b, add(d2, d2)))
    if rows > 3:
        store(out, at + 3 * width, subtract(b, add(d3, d3)))


@njit(forceinline=True)
def _compare(d0, d1, d2, d3, row, rows, p, thresholds, level, bits, out, width, plane):
    """Write bits d <= threshold, or codes, of panel p: sixteen columns an element of `out`.

    Numba drops the branch that the number of dimensions excludes before it compiles.
    """
    at, t = row * width + p, 16 * p
    if thresholds.ndim > 1:
        _compare_levels(d0, d1, d2, d3, at, rows, t, thresholds, level, bits, out, width, plane)
        return
    threshold = load(thresholds, t)
    out[at] = at_most(d0, threshold)
    if rows > 1:
        out[at + width] = at_most(d1, threshold)
    if rows > 2:
        out[at + 2 * width] = at_most(d2, threshold)
    if rows > 3:
        out[at + 3 * width] = at_most(d3, threshold)


@njit(forceinline=True)
def _compare_levels(d0, d1, d2, d3, at, rows, t, thresholds, level, bits, out, width, plane):
    """As `_compare`, codes of `bits` bits; `level` thresholds a level."""
    c0 = c1 = c2 = c3 = np.uint64(0)
    for j in range((1 << bits) - 1):
        threshold = load(thresholds, t + j * level)
        c0 ^= planes_of(at_most(d0, threshold), j)
        c1 ^= planes_of(at_most(d1, threshold), j)
        c2 ^= planes_of(at_most(d2, threshold), j)
        c3 ^= planes_of(at_most(d3, threshold), j)
    write_planes(c0, bits, out, at, plane)
    if rows > 1:
        write_planes(c1, bits, out, at + width, plane)
    if rows > 2:
        write_planes(c2, bits, out, at + 2 * width, plane)
    if rows > 3:
        write_planes(c3, bits, out, at + 3 * width, plane)


@njit(forceinline=True)
def planes_of(reached, j):
    """What threshold j adds, by xor, to the bit planes of sixteen codes: 16 bits a plane.

    A code is the number of thresholds that are reached. They are reached in order, so bit i of the
    code is the parity of how many of the thresholds number 2^i, 2 · 2^i, 3 · 2^i, ... are reached.
    """
    return np.uint64(reached) * PLANES[j]


@njit(forceinline=True)
def write_planes(c, bits, out, at, plane):
    """Write bit planes of codes, the highest first, `plane` elements apart."""
    out[at + (bits - 1) * plane] = np.uint16(c)
    out[at + (bits - 2) * plane] = np.uint16(c >> np.uint64(16))
    if bits > 2:
        out[at + (bits - 3) * plane] = np.uint16(c >> np.uint64(32))
    if bits > 3:
        out[at] = np.uint16(c >> np.uint64(48))


_multiply, _multiply_to_bits = product(_subtract), product(_compare)


@kernel()
def dense(a, stride, m, w, size, kw, pairs, task_panels, base, out, width):
    """out[m, n] = base[n] - 2 d[m, n], where d is the accumulator of tiles.py.

    Shapes:
        a:    (rows, stride) uint32, flat; padded to TILE_ROWS
        m:    rows that are computed
        w:    (panels, weight planes, kw, 16) uint32, flat; padded to TILE_PANELS; `size` a panel.
              Of bytes (panels, kw, 64) int8
        base: (panels · 16,) int32
        out:  (rows, width) int32, flat, width >= panels · 16

    A task is one band of rows, which stay in the first-level cache, times `task_panels` panels; the
    threads share the tasks.
    """
    panels = base.size // LANES
    tasks_per_band = (panels + task_panels - 1) // task_panels
    for task in prange((m + BAND_ROWS - 1) // BAND_ROWS * tasks_per_band):
        r, panel_begin = (task // tasks_per_band) * BAND_ROWS, (task % tasks_per_band) * task_panels
        row_end, panel_end = min(m, r + BAND_ROWS), min(panels, panel_begin + task_panels)
        _multiply(
            a, r * stride, stride, r, row_end, w, panel_begin, panel_end, size, kw,
            pairs, (base, out, width),
        )  # fmt: skip


@kernel()
def dense_bits(a, stride, m, w, size, kw, pairs, task_panels, thresholds, bits, out, width, plane):
    """Bit n of row m of `out` is d[m, n] <= thresholds[n], or its code; otherwise as `dense`.

    Shapes:
        thresholds: (panels · 16,) int32; for codes (2^bits - 1, panels · 16), none above the
                    one before it
        out:        (rows, width) uint16, flat: sixteen columns an element, width >= panels; bit
                    planes of codes are `plane` elements apart, the highest first
    """
    panels = thresholds.size // (LANES * ((1 << bits) - 1))
    tasks_per_band = (panels + task_panels - 1) // task_panels
    for task in prange((m + BAND_ROWS - 1) // BAND_ROWS * tasks_per_band):
        r, panel_begin = (task // tasks_per_band) * BAND_ROWS, (task % tasks_per_band) * task_panels
        row_end, panel_end = min(m, r + BAND_ROWS), min(panels, panel_begin + task_panels)
        _multiply_to_bits(
            a, r * stride, stride, r, row_end, w, panel_begin, panel_end, size, kw,
            pairs, (thresholds, 16 * panels, bits, out, width, plane),
        )  # fmt: skip


@njit
def pack_row_planes(source, at, k, bits, i, kw, planes):
    """Pack the bit planes of k bytes, the highest first, `kw` words each."""
    compile_small()
    for word in range(planes * kw):
        bits[i + word] = np.uint32(0)
    for n in range(k):
        byte, word, one = source[at + n], i + n // 32, np.uint32(n % 32)
        for plane in range(planes):
            bit = np.uint32((byte >> (planes - 1 - plane)) & 1)
            bits[word + plane * kw] |= bit << one


@kernel()
def pack_planes(source, m, k, bits, kw, planes):
    """Pack bit planes, the highest first: (m, source.size / m) uint8 -> (m, planes, kw) uint32."""
    for r in prange(m):
        pack_row_planes(source, r * (source.size // m), k, bits, r * planes * kw, kw, planes)


@kernel()
def baseline(a, w, out):
    """out = a · wᵀ in float32 by three plain loops, not optimized: the paper's own baseline.

    Shapes: a (M, K), w (N, K), out (M, N), float32.
    """
    for m in prange(a.shape[0]):
        for n in range(w.shape[0]):
            total = np.float32(0)
            for k in range(a.shape[1]):
                total += a[m, k] * w[n, k]
            out[m, n] = total
