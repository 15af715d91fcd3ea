"""Winograd's transforms of tiles, channels side by side: sixteen to a vector.

Arrays are flat, channels innermost; tiles = images · height/4 · width/4. Points 0, 1, -1, 2, -2 and
infinity: Bᵀ of six inputs, G of a filter of three or four, Aᵀ of four outputs or three taps.
"""

import numpy as np

from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.simd_f32 import add_floats, multiply_add, scale, signs, subtract_floats
from bnnrun.gemm.vector import load, store, zero

PLACES = 36  # of a transformed tile

F = np.float32
SIXTH, TWELFTH, TWENTY_FOURTH = F(1 / 6), F(1 / 12), F(1 / 24)


@njit(forceinline=True)
def _tile(d0, d1, d2, d3, d4, d5):
    """Bᵀ d of six inputs."""
    p, q = multiply_add(d2, F(-4), d4), multiply_add(d1, F(-4), d3)
    r, s = subtract_floats(d4, d2), scale(subtract_floats(d3, d1), F(2))
    first = multiply_add(d0, F(4), multiply_add(d2, F(-5), d4))
    last = multiply_add(d1, F(4), multiply_add(d3, F(-5), d5))
    return (
        first,
        add_floats(p, q),
        subtract_floats(p, q),
        add_floats(r, s),
        subtract_floats(r, s),
        last,
    )


@njit(forceinline=True)
def _filter(x0, x1, x2, x3):
    """G x, of four pixels taken as a filter."""
    even, odd = scale(add_floats(x0, x2), -SIXTH), scale(add_floats(x1, x3), -SIXTH)
    p = scale(multiply_add(x2, F(4), x0), TWENTY_FOURTH)
    q = scale(multiply_add(x3, F(4), x1), TWELFTH)
    return (
        scale(x0, F(0.25)),
        add_floats(even, odd),
        subtract_floats(even, odd),
        add_floats(p, q),
        subtract_floats(p, q),
        x3,
    )


@njit(forceinline=True)
def _weight(x0, x1, x2):
    """G x, of three taps."""
    even, odd = scale(add_floats(x0, x2), -SIXTH), scale(x1, -SIXTH)
    p, q = multiply_add(x2, SIXTH, scale(x0, TWENTY_FOURTH)), scale(x1, TWELFTH)
    return (
        scale(x0, F(0.25)),
        add_floats(even, odd),
        subtract_floats(even, odd),
        add_floats(p, q),
        subtract_floats(p, q),
        x2,
    )


@njit(forceinline=True)
def _output(m0, m1, m2, m3, m4, m5):
    """Aᵀ m, the four outputs."""
    a, b = add_floats(m1, m2), subtract_floats(m1, m2)
    c, d = add_floats(m3, m4), subtract_floats(m3, m4)
    return (
        add_floats(add_floats(m0, a), c),
        multiply_add(d, F(2), b),
        multiply_add(c, F(4), a),
        add_floats(multiply_add(d, F(8), b), m5),
    )


@njit(forceinline=True)
def _taps(m0, m1, m2, m3, m4, m5):
    """Aᵀ m, the three taps of g_W."""
    a, b = add_floats(m1, m2), subtract_floats(m1, m2)
    c, d = add_floats(m3, m4), subtract_floats(m3, m4)
    return (
        add_floats(add_floats(m0, a), c),
        multiply_add(d, F(2), b),
        add_floats(multiply_add(c, F(4), a), m5),
    )


@njit(_nrt=True)
def _block():
    """A buffer for the vectors of a tile, aligned to cache lines."""
    buffer = np.empty(16 * (PLACES + 1), np.float32)
    start = (64 - buffer.ctypes.data % 64) % 64 // 4
    return buffer[start : start + 16 * PLACES]


@njit(forceinline=True)
def _load6(x, at, step):
    return (
        load(x, at),
        load(x, at + step),
        load(x, at + 2 * step),
        load(x, at + 3 * step),
        load(x, at + 4 * step),
        load(x, at + 5 * step),
    )


@njit(forceinline=True)
def _store6(x, at, step, v):
    store(x, at, v[0])
    store(x, at + step, v[1])
    store(x, at + 2 * step, v[2])
    store(x, at + 3 * step, v[3])
    store(x, at + 4 * step, v[4])
    store(x, at + 5 * step, v[5])


@njit(forceinline=True)
def _store4(x, at, step, v):
    store(x, at, v[0])
    store(x, at + step, v[1])
    store(x, at + 2 * step, v[2])
    store(x, at + 3 * step, v[3])


@njit(forceinline=True)
def _store3(x, at, step, v):
    store(x, at, v[0])
    store(x, at + step, v[1])
    store(x, at + 2 * step, v[2])


@njit(forceinline=True)
def _row(x, image, y, left, height, width, channels, channel):
    """Six pixels of a row from column `left` on, zeros outside the image."""
    none = zero()
    if y < 0 or y >= height:
        return none, none, none, none, none, none
    at = image + (y * width + left) * channels + channel
    first = load(x, at) if left >= 0 else none
    last = load(x, at + 5 * channels) if left + 5 < width else none
    return (
        first,
        load(x, at + channels),
        load(x, at + 2 * channels),
        load(x, at + 3 * channels),
        load(x, at + 4 * channels),
        last,
    )


@kernel()
def transform_tiles(x, images, height, width, channels, out):
    """Bᵀ d B of the 6x6 pixels around each 4x4.

    Shapes, of all flat arrays here channels innermost, tiles = images · height/4 · width/4:
        x:   (images, height, width, channels)
        out: (36, tiles, channels)
    """
    down, across = height // 4, width // 4
    plane = images * down * across * channels
    for task in prange(images * down):
        image, top = task // down * height * width * channels, 4 * (task % down) - 1
        block = _block()
        for left in range(across):
            at = (task * across + left) * channels
            for channel in range(0, channels, 16):
                for r in range(6):
                    d = _row(x, image, top + r, 4 * left - 1, height, width, channels, channel)
                    _store6(block, 96 * r, 16, _tile(d[0], d[1], d[2], d[3], d[4], d[5]))
                for s in range(6):
                    d = _load6(block, 16 * s, 96)
                    v = _tile(d[0], d[1], d[2], d[3], d[4], d[5])
                    _store6(out, s * plane + at + channel, 6 * plane, v)


@njit(forceinline=True)
def _filter_columns(block, out, at, plane):
    """The columns of G x Gᵀ of 4x4 pixels, written to all 36 places."""
    for s in range(6):
        i = 16 * s
        v = _filter(load(block, i), load(block, i + 96), load(block, i + 192), load(block, i + 288))
        _store6(out, s * plane + at, 6 * plane, v)


@kernel()
def transform_filters(x, images, height, width, channels, out):
    """G x Gᵀ of each 4x4 pixels. Shapes: as `transform_tiles`."""
    down, across = height // 4, width // 4
    plane = images * down * across * channels
    for task in prange(images * down):
        top = task // down * height + 4 * (task % down)
        block = _block()
        for left in range(across):
            at = (task * across + left) * channels
            for channel in range(0, channels, 16):
                for r in range(4):
                    i = ((top + r) * width + 4 * left) * channels + channel
                    v = _filter(
                        load(x, i),
                        load(x, i + channels),
                        load(x, i + 2 * channels),
                        load(x, i + 3 * channels),
                    )
                    _store6(block, 96 * r, 16, v)
                _filter_columns(block, out, at + channel, plane)


@kernel()
def transform_packed_filters(x, images, height, width, channels, cells, out):
    """As `transform_filters`, of pixels that are ±1. Shapes: x as `pack_images` writes it."""
    down, across = height // 4, width // 4
    plane = images * down * across * channels
    pixel = 2 * cells
    for task in prange(images * down):
        top = task // down * (height + 2) + 4 * (task % down) + 1
        block = _block()
        for left in range(across):
            at = (task * across + left) * channels
            for channel in range(0, channels, 16):
                for r in range(4):
                    i = ((top + r) * (width + 2) + 4 * left + 1) * pixel + channel // 16
                    v = _filter(
                        signs(x[i]),
                        signs(x[i + pixel]),
                        signs(x[i + 2 * pixel]),
                        signs(x[i + 3 * pixel]),
                    )
                    _store6(block, 96 * r, 16, v)
                _filter_columns(block, out, at + channel, plane)


@kernel()
def transform_outputs(m, images, height, width, channels, out):
    """Aᵀ m A: the pixels of each tile. Shapes: m as `out` of `transform_tiles`, out as its `x`."""
    down, across = height // 4, width // 4
    plane = images * down * across * channels
    for task in prange(images * down):
        top = task // down * height + 4 * (task % down)
        block = _block()
        for left in range(across):
            at = (task * across + left) * channels
            for channel in range(0, channels, 16):
                for s in range(6):
                    d = _load6(m, s * plane + at + channel, 6 * plane)
                    v = _output(d[0], d[1], d[2], d[3], d[4], d[5])
                    _store4(block, 16 * s, 96, v)
                for r in range(4):
                    d = _load6(block, 96 * r, 16)
                    v = _output(d[0], d[1], d[2], d[3], d[4], d[5])
                    i = ((top + r) * width + 4 * left) * channels + channel
                    _store4(out, i, channels, v)


@njit(forceinline=True)
def _weight_columns(block, out, at, plane):
    """The columns of G w Gᵀ, written to all 36 places."""
    for s in range(6):
        i = 16 * s
        v = _weight(load(block, i), load(block, i + 96), load(block, i + 192))
        _store6(out, s * plane + at, 6 * plane, v)


@kernel()
def transform_weights(w, outputs, channels, turned, out):
    """G w Gᵀ of filters, rotated by 180 degrees first if `turned`.

    Shapes:
        w:   (outputs, 3, 3, channels) flat
        out: (36, outputs, channels) flat
    """
    plane = outputs * channels
    for n in prange(outputs):
        block = _block()
        begin, tap = 9 * n * channels, channels
        if turned:
            begin, tap = begin + 8 * channels, -channels
        for channel in range(0, channels, 16):
            for r in range(3):
                i = begin + 3 * r * tap + channel
                v = _weight(load(w, i), load(w, i + tap), load(w, i + 2 * tap))
                _store6(block, 96 * r, 16, v)
            _weight_columns(block, out, n * channels + channel, plane)


@kernel()
def transform_packed_weights(w, kw, outputs, channels, cells, out):
    """As `transform_weights` with `turned`, of filters that are ±1.

    Shapes:
        w:   (panels, kw, 16, 2) uint16, flat, as `pack_filters` writes it
        out: (36, outputs, channels) flat
    """
    plane, tap = outputs * channels, 32 * cells
    for n in prange(outputs):
        block = _block()
        for channel in range(0, channels, 16):
            begin = 32 * (n // 16 * kw + channel // 32) + 2 * (n % 16) + channel // 16 % 2
            for r in range(3):
                i = begin + 3 * (2 - r) * tap
                v = _weight(signs(w[i + 2 * tap]), signs(w[i + tap]), signs(w[i]))
                _store6(block, 96 * r, 16, v)
            _weight_columns(block, out, n * channels + channel, plane)


@kernel()
def transform_weight_gradients(m, outputs, channels, out):
    """Aᵀ m A: the nine taps of g_W, rotated by 180 degrees.

    Shapes: m as `out` of `transform_weights`; out (outputs, 3, 3, channels) flat
    """
    plane = outputs * channels
    for n in prange(outputs):
        block = _block()
        for channel in range(0, channels, 16):
            for s in range(6):
                d = _load6(m, s * plane + n * channels + channel, 6 * plane)
                v = _taps(d[0], d[1], d[2], d[3], d[4], d[5])
                _store3(block, 16 * s, 96, v)
            for r in range(3):
                d = _load6(block, 96 * r, 16)
                v = _taps(d[0], d[1], d[2], d[3], d[4], d[5])
                i = (9 * n + 3 * (2 - r)) * channels + channel
                _store3(out, i, channels, (v[2], v[1], v[0]))
