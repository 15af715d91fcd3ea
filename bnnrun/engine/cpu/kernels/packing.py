"""Kernels that pack signs of float32 to bits, in the layouts of gemm."""

import numpy as np

from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.simd_f32 import nearer_zero, not_negative, not_zero
from bnnrun.gemm.vector import load, set_bit, store, zero

BLOCK = 32  # rows of W: one word of every column
STRETCH = 1024  # columns whose words are computed together: they fit the first-level cache


@kernel()
def pack_weights(w, row_begin, row_end, k, rows, row_kw, columns, column_kw):
    """Pack the signs of rows `row_begin` to `row_end` of W, by row and by column.

    Shapes, flat:
        w:       (row_end - row_begin, k) float32; row_begin a multiple of BLOCK
        rows:    (panels, row_kw, 16, 2) uint16, halves of words
        columns: (panels, column_kw, 16) uint32
    """
    for block in prange((row_end - row_begin + BLOCK - 1) // BLOCK):
        low = row_begin + BLOCK * block
        high = min(row_end, low + BLOCK)
        tail = k - k % 16
        column = np.empty(STRETCH, np.uint32)
        # One stretch of a row at a time, so that memory is read in order.
        for left in range(0, tail, STRETCH):
            count = min(STRETCH, tail - left)
            for i in range(0, count, 16):
                store(column, i, zero())
            for n in range(low, high):
                to = 2 * (16 * (n // 16 * row_kw + left // 32) + n % 16)
                for i in range(0, count, 16):
                    bits = not_negative(load(w, (n - row_begin) * k + left + i))
                    store(column, i, set_bit(load(column, i), bits, n - low))
                    rows[to + 32 * (i // 32) + i // 16 % 2] = bits
            for i in range(0, count, 16):
                store(columns, 16 * ((left + i) // 16 * column_kw + low // 32), load(column, i))
        for i in range(tail, k):
            word = np.uint32(0)
            for n in range(low, high):
                at = 2 * (16 * (n // 16 * row_kw + i // 32) + n % 16) + i // 16 % 2
                bits = rows[at] if i > tail else np.uint16(0)
                if w[(n - row_begin) * k + i] >= 0:
                    bits = np.uint16(bits | np.uint16(1 << i % 16))
                    word |= np.uint32(1) << np.uint32(n - low)
                rows[at] = bits
            columns[16 * (i // 16 * column_kw + low // 32) + i % 16] = word


@kernel()
def pack_rows(a, k, bits, mask, nonzero):
    """Pack rows of -1, 0 and +1: bits of +1, a mask of nonzeros, and its popcount.

    Shapes: a (m · k,) float32; bits, mask (m, 2 kw) uint16, zeros; nonzero (m,) int32
    """
    for m in prange(nonzero.size):
        count = 0
        for i in range(k // 16):
            x = load(a, m * k + 16 * i)
            bits[m, i], mask[m, i] = not_negative(x), not_zero(x)
        for i in range(k - k % 16, k):
            x = a[m * k + i]
            bits[m, i // 16] |= np.uint16((x >= 0) << i % 16)
            mask[m, i // 16] |= np.uint16((x != 0) << i % 16)
        for i in range(k):
            count += a[m * k + i] != 0
        nonzero[m] = count


@njit(forceinline=True)
def _pack_planes(x, planes, out, to, plane):
    """Pack sixteen numbers 2c - n, or signs, to bit planes, the highest first.

    Such a number is the sum of 2^i · (±1): its sign is the highest bit, and that of what is left
    the next one.
    """
    for i in range(planes):
        out[to + i * plane] = not_negative(x)
        x = nearer_zero(x, np.float32(1 << (planes - 1 - i)))


@kernel()
def pack_images(a, images, height, width, channels, cells, planes, out):
    """Pack images of signs, or of 2c - n, to padded images of bits; channels a multiple of 16.

    Shapes, flat: a (images, height, width, channels) float32;
    out (images, planes, height + 2, width + 2, 2 cells) uint16
    """
    plane = 2 * cells * (height + 2) * (width + 2)
    for line in prange(images * height):
        image, y = line // height, line % height
        for x in range(width):
            at = (line * width + x) * channels
            to = image * planes * plane + 2 * cells * ((y + 1) * (width + 2) + x + 1)
            for c in range(channels // 16):
                _pack_planes(load(a, at + 16 * c), planes, out, to + c, plane)


@kernel()
def pack_filters(w, outputs, channels, cells, planes, out, kw, codes):
    """Pack filters of signs, or of 2c - n, to panels. Channels % 16 == 0.

    Shapes, flat: w (outputs, 9, channels) float32; out (panels, planes, kw, 16, 2) uint16;
    codes (outputs, 9) int32: the sum of c of each tap, of signs the number that are +1
    """
    half = np.float32((1 << planes) - 1) / np.float32(2)
    for n in prange(outputs):
        for tap in range(9):
            at = (9 * n + tap) * channels
            count = 0
            for c in range(channels // 16):
                word = n // 16 * planes * kw + tap * cells + c // 2
                to = 2 * (16 * word + n % 16) + c % 2
                _pack_planes(load(w, at + 16 * c), planes, out, to, 32 * kw)
            for c in range(channels):
                x = w[at + c]
                count += np.int32(x / np.float32(2) + half) if planes > 1 else np.int32(x >= 0)
            codes[9 * n + tap] = count
