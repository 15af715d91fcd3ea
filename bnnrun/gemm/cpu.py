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
    bits_at,
    compile_small,
    count_at_most,
    load,
    store,
    subtract,
    zero,
)

BAND_ROWS = 64  # rows of A in a task


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
        _write_codes(d0, thresholds, t, level, bits, out, at, plane)
        if rows > 1:
            _write_codes(d1, thresholds, t, level, bits, out, at + width, plane)
        if rows > 2:
            _write_codes(d2, thresholds, t, level, bits, out, at + 2 * width, plane)
        if rows > 3:
            _write_codes(d3, thresholds, t, level, bits, out, at + 3 * width, plane)
        return
    threshold = load(thresholds, t)
    out[at] = at_most(d0, threshold)
    if rows > 1:
        out[at + width] = at_most(d1, threshold)
    if rows > 2:
        out[at + 2 * width] = at_most(d2, threshold)
    if rows > 3:
        out[at + 3 * width] = at_most(d3, threshold)


@njit
def _write_codes(d, thresholds, t, level, bits, out, at, plane):
    """Bit planes of codes, the highest first, `plane` elements apart."""
    compile_small()
    c = codes(d, thresholds, t, level, bits)
    for i in range(bits):
        out[at + (bits - 1 - i) * plane] = bits_at(c, i)


@njit(forceinline=True)
def codes(d, thresholds, t, level, bits):
    """The numbers of thresholds that sixteen accumulators are at most as large as.

    No binary search: selecting the next threshold for each lane takes as many instructions as the
    comparisons that it saves.

    Args:
        t, level: where the first thresholds are; elements from them to the next
    """
    c = zero()
    for j in range((1 << bits) - 1):
        c = count_at_most(c, d, load(thresholds, t + j * level))
    return c


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
        thresholds: (panels · 16,) int32; for codes (2^bits - 1, panels · 16)
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
