"""Fused update kernels: g_W, Adam's step and the new signs, some rows of weights at a time."""

import numpy as np

from bnnrun.engine.cpu.kernels.elementwise import adam_element
from bnnrun.engine.cpu.kernels.packing import BLOCK
from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.simd_f32 import multiply_add, not_negative, not_zero, scale, to_floats
from bnnrun.gemm.vector import (
    add,
    add_byte_products,
    broadcast,
    fill,
    load,
    prefetch,
    set_bit,
    store,
    subtract,
    zero,
)

LARGEST_INT16 = 127 * 256  # of 16-bit integers of which both bytes are signed
TILE_ROWS = 4  # rows of g_W that are computed together
STRETCH = 1024  # columns of g_W that fit the first-level cache
BLOCK_OUTPUTS = 64  # outputs whose gradients are quantized together


@kernel(error_model="numpy")
def quantize(g, q, factor, scales, sums):
    """q = round(g / scale), scale = max |g| of an output / LARGEST_INT16, as two signed bytes.

    Shapes: g (B, N) float32; q (rows, 2, kw) uint32, four images to a word, the first the lowest;
    scales, sums (rows,); `factor` multiplies the scales.
    """
    batch, n = g.shape
    for block in prange(-(-n // BLOCK_OUTPUTS)):
        begin = BLOCK_OUTPUTS * block
        count = min(BLOCK_OUTPUTS, n - begin)
        # Loops over outputs without branches: the compiler vectorizes them.
        divisor = np.empty(BLOCK_OUTPUTS, np.float32)
        total, highs, lows = np.empty((3, BLOCK_OUTPUTS), np.int32)
        for j in range(count):
            divisor[j], total[j], highs[j], lows[j] = 0, 0, 0, 0
        for b in range(batch):
            for j in range(count):
                divisor[j] = max(divisor[j], abs(g[b, begin + j]))
        for j in range(count):
            scale = divisor[j] / np.float32(LARGEST_INT16)
            scales[begin + j] = factor * scale
            divisor[j] = scale if scale > 0 else np.float32(1)
        for word in range(q.shape[2]):
            for place in range(min(4, batch - 4 * word)):
                for j in range(count):
                    x = np.int32(np.rint(g[4 * word + place, begin + j] / divisor[j]))
                    total[j] += x
                    high = (x + 128) >> 8
                    highs[j] |= (high & 255) << 8 * place
                    lows[j] |= (x - (high << 8) & 255) << 8 * place
            for j in range(count):
                q[begin + j, 0, word], q[begin + j, 1, word] = (
                    np.uint32(highs[j]),
                    np.uint32(lows[j]),
                )
                highs[j], lows[j] = 0, 0
        for j in range(count):
            sums[begin + j] = total[j]


@kernel()
def pack_byte_panels(a, k, panels):
    """Pack bytes: 0, 1, 2 for -1, 0, +1; four images a word, the first in the lowest byte.

    Shapes, flat: a (B, K) float32; panels (P, kw, 16) uint32, zeros
    """
    batch = a.size // k
    kw = (batch + 3) // 4
    for p in prange((k + 15) // 16):
        for word in range(kw):
            to, rows = 16 * (p * kw + word), min(4, batch - 4 * word)
            if 16 * p + 16 <= k:
                bytes_of = zero()
                for j in range(rows):
                    x = load(a, (4 * word + j) * k + 16 * p)
                    other = not_zero(x)
                    bytes_of = set_bit(bytes_of, np.uint16(not_negative(x) & other), 8 * j + 1)
                    bytes_of = set_bit(bytes_of, np.uint16(~other), 8 * j)
                store(panels, to, bytes_of)
            else:
                for i in range(k - 16 * p):
                    for j in range(rows):
                        y = a[(4 * word + j) * k + 16 * p + i]
                        panels[to + i] |= np.uint32(1 + (y > 0) - (y < 0)) << np.uint32(8 * j)


@njit(forceinline=True)
def _sixteen_bits(high, low):
    """256 · high + low."""
    for _ in range(8):
        high = add(high, high)
    return add(high, low)


@njit(forceinline=True)
def _multiply(q, r, kw, scales, sums, panels, j, g, at):
    """Multiply rows r .. r + TILE_ROWS of q by two panels; write to g[at + row · STRETCH]."""
    i = 2 * kw * r
    i1, i2, i3 = i + 2 * kw, i + 4 * kw, i + 6 * kw
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero()
    c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = zero()
    for k in range(kw):
        x, y = load(panels, j + 16 * k), load(panels, j + 16 * (kw + k))
        z = broadcast(q, i + k)
        a0, c0 = add_byte_products(a0, x, z), add_byte_products(c0, y, z)
        z = broadcast(q, i + kw + k)
        b0, d0 = add_byte_products(b0, x, z), add_byte_products(d0, y, z)
        z = broadcast(q, i1 + k)
        a1, c1 = add_byte_products(a1, x, z), add_byte_products(c1, y, z)
        z = broadcast(q, i1 + kw + k)
        b1, d1 = add_byte_products(b1, x, z), add_byte_products(d1, y, z)
        z = broadcast(q, i2 + k)
        a2, c2 = add_byte_products(a2, x, z), add_byte_products(c2, y, z)
        z = broadcast(q, i2 + kw + k)
        b2, d2 = add_byte_products(b2, x, z), add_byte_products(d2, y, z)
        z = broadcast(q, i3 + k)
        a3, c3 = add_byte_products(a3, x, z), add_byte_products(c3, y, z)
        z = broadcast(q, i3 + kw + k)
        b3, d3 = add_byte_products(b3, x, z), add_byte_products(d3, y, z)
    _put(g, at, _sixteen_bits(a0, b0), _sixteen_bits(c0, d0), scales[r], sums[r])
    at, r = at + STRETCH, r + 1
    _put(g, at, _sixteen_bits(a1, b1), _sixteen_bits(c1, d1), scales[r], sums[r])
    at, r = at + STRETCH, r + 1
    _put(g, at, _sixteen_bits(a2, b2), _sixteen_bits(c2, d2), scales[r], sums[r])
    at, r = at + STRETCH, r + 1
    _put(g, at, _sixteen_bits(a3, b3), _sixteen_bits(c3, d3), scales[r], sums[r])


@njit(forceinline=True)
def _put(g, at, x, y, factor, total):
    # The int32 accumulator may wrap; subtracting the total modulo 2^32 restores the exact value.
    store(g, at, scale(to_floats(subtract(x, fill(total))), factor))
    store(g, at + 16, scale(to_floats(subtract(y, fill(total))), factor))


@njit(forceinline=True)
def _multiply_reals(g_s, i, a, j, batch, g, at):
    """Multiply TILE_ROWS outputs by a panel of 32 inputs; write to g[at + output · STRETCH]."""
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero()
    for _ in range(batch):
        x, y = load(a, j), load(a, j + 16)
        a0, b0 = multiply_add(x, g_s[i], a0), multiply_add(y, g_s[i], b0)
        a1, b1 = multiply_add(x, g_s[i + 1], a1), multiply_add(y, g_s[i + 1], b1)
        a2, b2 = multiply_add(x, g_s[i + 2], a2), multiply_add(y, g_s[i + 2], b2)
        a3, b3 = multiply_add(x, g_s[i + 3], a3), multiply_add(y, g_s[i + 3], b3)
        i, j = i + TILE_ROWS, j + 32
    store(g, at, a0)
    store(g, at + 16, b0)
    store(g, at + STRETCH, a1)
    store(g, at + STRETCH + 16, b1)
    store(g, at + 2 * STRETCH, a2)
    store(g, at + 2 * STRETCH + 16, b2)
    store(g, at + 3 * STRETCH, a3)
    store(g, at + 3 * STRETCH + 16, b3)


@njit(forceinline=True)
def _fetch(w, m, v, at):
    """Prefetch 32 columns of w, m and v for the step that follows the multiplication."""
    prefetch(w, at)
    prefetch(w, at + 16)
    prefetch(m, at)
    prefetch(m, at + 16)
    prefetch(v, at)
    prefetch(v, at + 16)


@njit(inline="always")
def _step(w, m, v, g, constants, bound):
    """Adam's update of a stretch of a row.

    Of arrays that begin there: an index that may be negative, as far as Numba knows, is compared
    with 0 at each element, and the compiler does not vectorize the loop.
    """
    b1, b1_rest, b2, b2_rest, step, eps = constants
    for i in range(w.size):
        w[i], m[i], v[i] = adam_element(
            w[i], g[i], m[i], v[i], b1, b1_rest, b2, b2_rest, step, eps, bound
        )


@njit(forceinline=True)
def _pack(w, at, count, bit, rows, to, column):
    """Pack the signs of a stretch of a row to its panel, and to bit `bit` of its columns' words."""
    for i in range(0, count - 15, 16):
        bits = not_negative(load(w, at + i))
        store(column, i, set_bit(load(column, i), bits, bit))
        rows[to + 32 * (i // 32) + i // 16 % 2] = bits
    tail = count - count % 16
    bits = np.uint16(0)
    for i in range(tail, count):
        if w[at + i] >= 0:
            bits = np.uint16(bits | np.uint16(1 << i % 16))
            column[i] |= np.uint32(1) << np.uint32(bit)
    if tail < count:
        rows[to + 32 * (tail // 32) + tail // 16 % 2] = bits


@njit(inline="always")
def _update_rows(
    w, m, v, k, g, start, low, high, left, count, constants, bound, rows, row_kw, column
):
    """Adam's step of a stretch of some rows, and the packing of the new signs."""
    for r in range(low, high):
        at, of_row = r * k + left, start + STRETCH * (r - low)
        end = at + count
        _step(w[at:end], m[at:end], v[at:end], g[of_row : of_row + count], constants, bound)
        to = 2 * (16 * (r // 16 * row_kw + left // 32) + r % 16)
        _pack(w, at, count, r % BLOCK, rows, to, column)


@njit(forceinline=True)
def _store_columns(column, count, columns, column_kw, left, block):
    for i in range(0, count, 16):
        store(columns, 16 * ((left + i) // 16 * column_kw + block), load(column, i))


@njit(_nrt=True)
def _buffers():
    """Buffers of a task: (g, start, column).

    g[start:] is a stretch of TILE_ROWS rows of g_W, aligned to a cache line; column holds the
    words of its columns.
    """
    g, column = np.empty(TILE_ROWS * STRETCH + 16, np.float32), np.empty(STRETCH, np.uint32)
    return g, (64 - g.ctypes.data % 64) % 64 // 4, column


@kernel(error_model="numpy")
def adam_by_bytes(
    w, m, v, q, scales, sums, panels, kw, constants, clip, rows, row_kw, columns, column_kw
):
    """Shapes: w, m, v (N, K) float32; q to panels as in `ByteFactors`, flat; constants as in
    `adam_kernel`; rows (., row_kw, 16, 2) uint16 and columns (., column_kw, 16) uint32, flat.
    """
    n, k = w.shape
    flat, flat_m, flat_v = w.reshape(-1), m.reshape(-1), v.reshape(-1)
    bound = np.float32(1) if clip else np.float32(np.inf)
    for block in prange((n + BLOCK - 1) // BLOCK):
        g, start, column = _buffers()
        for left in range(0, k, STRETCH):
            count = min(STRETCH, k - left)
            for i in range(0, STRETCH, 16):
                store(column, i, zero())
            for low in range(BLOCK * block, min(n, BLOCK * (block + 1)), TILE_ROWS):
                high = min(n, low + TILE_ROWS)
                for i in range(0, count, 32):
                    for r in range(low, high):
                        _fetch(flat, flat_m, flat_v, r * k + left + i)
                    _multiply(q, low, kw, scales, sums, panels, kw * (left + i), g, start + i)
                _update_rows(
                    flat, flat_m, flat_v, k, g, start, low, high, left, count, constants, bound,
                    rows, row_kw, column,
                )  # fmt: skip
            _store_columns(column, count, columns, column_kw, left, block)


@kernel(error_model="numpy")
def adam_by_reals(
    w, m, v, g_s, a, batch, constants, clip, rows, row_kw, columns, column_kw
):  # fmt: skip
    """Shapes: g_s, a as in `RealFactors`, flat; the others as of `adam_by_bytes`."""
    n, k = w.shape
    flat, flat_m, flat_v = w.reshape(-1), m.reshape(-1), v.reshape(-1)
    bound = np.float32(1) if clip else np.float32(np.inf)
    for block in prange((n + BLOCK - 1) // BLOCK):
        g, start, column = _buffers()
        for left in range(0, k, STRETCH):
            count = min(STRETCH, k - left)
            for i in range(0, STRETCH, 16):
                store(column, i, zero())
            for low in range(BLOCK * block, min(n, BLOCK * (block + 1)), TILE_ROWS):
                high = min(n, low + TILE_ROWS)
                for i in range(0, count, 32):
                    for r in range(low, high):
                        _fetch(flat, flat_m, flat_v, r * k + left + i)
                    _multiply_reals(g_s, batch * low, a, batch * (left + i), batch, g, start + i)
                _update_rows(
                    flat, flat_m, flat_v, k, g, start, low, high, left, count, constants, bound,
                    rows, row_kw, column,
                )  # fmt: skip
            _store_columns(column, count, columns, column_kw, left, block)
