"""XNOR-popcount products on the processor, sixteen columns at a time.

Rows of A lie as they were packed: `kw` words each. W is laid out in panels of sixteen columns
(`bits.to_panels`), word by word, so that one vector holds the same word of sixteen columns: a word
of A is broadcast, and no sum over lanes is ever needed.

    d[m, n] = popc(a[m] ^ w[n]),  s = K - 2 d

Two popcount algorithms; ALGORITHM_BITS is the faster one on this processor:

* ALGORITHM_POPCOUNT: one carry-save adder, then a popcount instruction for two words. Needs a
  vector popcount.
* ALGORITHM_ADDERS: four levels of carry-save adders (Harley-Seal), then one popcount for sixteen
  words. For processors where a vector popcount takes several instructions.
"""

import numpy as np

from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.vector import (
    HAS_POPCOUNT,
    add,
    add_byte_products,
    add_bytes,
    add_weighted_bytes,
    at_most,
    bits_at,
    broadcast,
    carry,
    carry_out,
    count_at_most,
    load,
    popcount,
    popcount_bytes,
    store,
    subtract,
    xor3,
    zero,
)

TILE_ROWS = 4  # rows of A multiplied together: a word of W is loaded once for all of them
BAND_ROWS = 64  # rows of A in a task, whose accumulators a thread keeps in memory
UNIT_WORDS = 4  # the words of a row, and of a panel's column, are a multiple of it
FLUSH_WORDS = 31 * 16  # words after which a popcount held in a byte could overflow

# Algorithms that multiply rows by a panel; ALGORITHM_BYTES multiplies bytes by signed bytes.
ALGORITHM_ADDERS, ALGORITHM_POPCOUNT, ALGORITHM_BYTES = 0, 1, 2
ALGORITHM_BITS = ALGORITHM_POPCOUNT if HAS_POPCOUNT else ALGORITHM_ADDERS


@njit(forceinline=True)
def _two(ones, a, i, x, y):
    """Add two words of a ^ w to `ones`: (ones, carry of weight 2)."""
    t = xor3(ones, broadcast(a, i), x)
    s = xor3(t, broadcast(a, i + 1), y)
    return s, carry(t, s, ones)


@njit(forceinline=True)
def full_adder(total, x, y):
    """Bitwise total + x + y: (sum, carry)."""
    s = xor3(total, x, y)
    return s, carry_out(s, total, x)


@njit(forceinline=True)
def _four(ones, twos, a, i, w, j):
    """Add four words of a ^ w: (ones, twos, carry of weight 4)."""
    ones, x = _two(ones, a, i, load(w, j), load(w, j + 16))
    ones, y = _two(ones, a, i + 2, load(w, j + 32), load(w, j + 48))
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


@njit(forceinline=True)
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


@njit
def _popcount_by_adders(a, i, stride, rows, w, j, kw, factor, accumulators):
    """popc(a ^ w) by carry-save adders; arguments as of `multiply_panel`."""
    for r in range(0, rows, 2):
        d0, d1 = _popcount_xor2(a, i, i + stride, w, j, kw)
        _put(accumulators, 16 * r, d0, factor)
        _put(accumulators, 16 * r + 16, d1, factor)
        i += 2 * stride


@njit
def _popcount_by_words(a, i, stride, rows, w, j, kw, factor, accumulators):
    """popc(a ^ w) by popcount instructions; arguments as of `multiply_panel`."""
    for r in range(0, rows, 4):
        i1, i2, i3 = i + stride, i + 2 * stride, i + 3 * stride
        o0 = o1 = o2 = o3 = n0 = n1 = n2 = n3 = zero()
        for k in range(0, kw, 2):
            x, y = load(w, j + 16 * k), load(w, j + 16 * k + 16)
            o0, c0 = _two(o0, a, i + k, x, y)
            o1, c1 = _two(o1, a, i1 + k, x, y)
            o2, c2 = _two(o2, a, i2 + k, x, y)
            o3, c3 = _two(o3, a, i3 + k, x, y)
            n0, n1 = add(n0, popcount(c0)), add(n1, popcount(c1))
            n2, n3 = add(n2, popcount(c2)), add(n3, popcount(c3))
        _put(accumulators, 16 * r, add(add(n0, n0), popcount(o0)), factor)
        _put(accumulators, 16 * r + 16, add(add(n1, n1), popcount(o1)), factor)
        _put(accumulators, 16 * r + 32, add(add(n2, n2), popcount(o2)), factor)
        _put(accumulators, 16 * r + 48, add(add(n3, n3), popcount(o3)), factor)
        i += 4 * stride


@njit
def _multiply_bytes(a, i, stride, rows, w, j, kw, factor, accumulators):
    """Sums of products of bytes; arguments as of `multiply_panel`.

    Two accumulators a row: an instruction has a latency of five cycles, and one accumulator
    would make each wait for the previous one.
    """
    for r in range(0, rows, 4):
        i1, i2, i3 = i + stride, i + 2 * stride, i + 3 * stride
        n0 = n1 = n2 = n3 = m0 = m1 = m2 = m3 = zero()
        for k in range(0, kw - 1, 2):
            x, y = load(w, j + 16 * k), load(w, j + 16 * k + 16)
            n0 = add_byte_products(n0, broadcast(a, i + k), x)
            n1 = add_byte_products(n1, broadcast(a, i1 + k), x)
            n2 = add_byte_products(n2, broadcast(a, i2 + k), x)
            n3 = add_byte_products(n3, broadcast(a, i3 + k), x)
            m0 = add_byte_products(m0, broadcast(a, i + k + 1), y)
            m1 = add_byte_products(m1, broadcast(a, i1 + k + 1), y)
            m2 = add_byte_products(m2, broadcast(a, i2 + k + 1), y)
            m3 = add_byte_products(m3, broadcast(a, i3 + k + 1), y)
        if kw % 2:
            x = load(w, j + 16 * kw - 16)
            n0 = add_byte_products(n0, broadcast(a, i + kw - 1), x)
            n1 = add_byte_products(n1, broadcast(a, i1 + kw - 1), x)
            n2 = add_byte_products(n2, broadcast(a, i2 + kw - 1), x)
            n3 = add_byte_products(n3, broadcast(a, i3 + kw - 1), x)
        _put(accumulators, 16 * r, add(n0, m0), factor)
        _put(accumulators, 16 * r + 16, add(n1, m1), factor)
        _put(accumulators, 16 * r + 32, add(n2, m2), factor)
        _put(accumulators, 16 * r + 48, add(n3, m3), factor)
        i += 4 * stride


@njit(forceinline=True)
def _put(accumulators, at, value, factor):
    """accumulators <- factor · accumulators + value; factor 0, 1 or 2."""
    if factor:
        before = load(accumulators, at)
        value = add(value, before)
        if factor == 2:
            value = add(value, before)
    store(accumulators, at, value)


@njit(forceinline=True)
def multiply_panel(a, i, stride, rows, w, j, kw, algorithm, planes, weight_planes, accumulators):
    """Multiply rows of A by one panel of W.

    The accumulators become, for rows of bits, d = popc(a ^ w); for rows of bit planes, the highest
    first and `kw` words each, the sum of 2^(n + m) · popc(plane n of a ^ plane m of w); for rows of
    bytes, the sum of products.

    forceinline: a Numba call increments each array's reference count atomically, and threads
    contend for it.

    Args:
        a, i, stride, rows: rows of A, the first at a[i], `stride` words apart; a multiple of
                            TILE_ROWS
        w, j, kw:           the panel, at w[j], and its words a plane: a multiple of UNIT_WORDS,
                            any number with ALGORITHM_BYTES
        algorithm:          ALGORITHM_ADDERS, ALGORITHM_POPCOUNT or ALGORITHM_BYTES
        planes:             bit planes of a row of A; 1 with ALGORITHM_BYTES
        weight_planes:      those of the panel; 1 with ALGORITHM_BYTES
        accumulators:       (rows, 16) int32, written
    """
    # Horner's rule: planes that weigh the same stand on a diagonal, the heaviest first.
    for diagonal in range(planes + weight_planes - 1):
        factor = 2 if diagonal else 0
        for n in range(max(0, diagonal - weight_planes + 1), min(planes, diagonal + 1)):
            of_a, of_w = i + n * kw, j + 16 * kw * (diagonal - n)
            if algorithm == ALGORITHM_ADDERS:
                _popcount_by_adders(a, of_a, stride, rows, w, of_w, kw, factor, accumulators)
            elif algorithm == ALGORITHM_POPCOUNT:
                _popcount_by_words(a, of_a, stride, rows, w, of_w, kw, factor, accumulators)
            else:
                _multiply_bytes(a, of_a, stride, rows, w, of_w, kw, factor, accumulators)
            factor = 1


@njit
def _subtract(accumulators, rows, base, out, at, width):
    """Write base - 2 · accumulators to a panel's columns of `out`."""
    for r in range(rows):
        d = load(accumulators, 16 * r)
        store(out, at + r * width, subtract(base, add(d, d)))


@njit
def _compare(accumulators, rows, threshold, out, at, width):
    """Write bits accumulators <= threshold, sixteen an element, to a panel's column of `out`."""
    for r in range(rows):
        out[at + r * width] = at_most(load(accumulators, 16 * r), threshold)


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


@njit
def _compare_levels(
    accumulators, rows, thresholds, t, level, bits, out, at, width, plane
):  # fmt: skip
    """Write codes to a column of panels of `out`, planes `plane` elements apart, highest first."""
    for r in range(rows):
        c = codes(load(accumulators, 16 * r), thresholds, t, level, bits)
        for i in range(bits):
            out[at + r * width + (bits - 1 - i) * plane] = bits_at(c, i)


@kernel()
def dense(a, stride, m, w, kw, algorithm, planes, weight_planes, task_panels, base, out, width):
    """out[m, n] = base[n] - 2 d[m, n], where d is the accumulator of `multiply_panel`.

    Shapes:
        a:    (rows, stride) uint32, flat; a multiple of TILE_ROWS rows
        m:    rows that are computed, a multiple of TILE_ROWS
        w:    (panels, weight_planes, kw, 16) uint32, flat
        base: (panels · 16,) int32
        out:  (rows, width) int32, flat, width >= panels · 16

    A task is one band of rows, which stay in the first-level cache, times `task_panels` panels; the
    threads share the tasks.
    """
    size = 16 * kw * weight_planes
    panels = w.size // size
    tasks_per_band = (panels + task_panels - 1) // task_panels
    for task in prange((m + BAND_ROWS - 1) // BAND_ROWS * tasks_per_band):
        r, panel_begin = (task // tasks_per_band) * BAND_ROWS, (task % tasks_per_band) * task_panels
        rows, panel_end = min(BAND_ROWS, m - r), min(panels, panel_begin + task_panels)
        accumulators = np.empty(16 * BAND_ROWS, np.int32)
        for p in range(panel_begin, panel_end):
            multiply_panel(
                a, r * stride, stride, rows, w, size * p, kw, algorithm, planes, weight_planes,
                accumulators,
            )  # fmt: skip
            _subtract(accumulators, rows, load(base, 16 * p), out, r * width + 16 * p, width)


@kernel()
def dense_bits(
    a, stride, m, w, kw, algorithm, planes, weight_planes, task_panels, thresholds, bits,
    out, width, plane,
):  # fmt: skip
    """Bit n of row m of `out` is d[m, n] <= thresholds[n], or its code; otherwise as `dense`.

    Shapes:
        thresholds: (2^bits - 1, panels · 16) int32, flat
        out:        (rows, width) uint16, flat: sixteen columns an element, width >= panels; bit
                    planes of codes are `plane` elements apart, the highest first
    """
    size = 16 * kw * weight_planes
    panels = w.size // size
    tasks_per_band = (panels + task_panels - 1) // task_panels
    for task in prange((m + BAND_ROWS - 1) // BAND_ROWS * tasks_per_band):
        r, panel_begin = (task // tasks_per_band) * BAND_ROWS, (task % tasks_per_band) * task_panels
        rows, panel_end = min(BAND_ROWS, m - r), min(panels, panel_begin + task_panels)
        accumulators = np.empty(16 * BAND_ROWS, np.int32)
        for p in range(panel_begin, panel_end):
            multiply_panel(
                a, r * stride, stride, rows, w, size * p, kw, algorithm, planes, weight_planes,
                accumulators,
            )  # fmt: skip
            if bits == 1:
                _compare(accumulators, rows, load(thresholds, 16 * p), out, r * width + p, width)
            else:
                _compare_levels(
                    accumulators, rows, thresholds, 16 * p, 16 * panels, bits, out, r * width + p,
                    width, plane,
                )  # fmt: skip


@njit
def pack_row_planes(source, at, k, bits, i, kw, planes):
    """Pack the bit planes of k bytes, the highest first, `kw` words each."""
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
