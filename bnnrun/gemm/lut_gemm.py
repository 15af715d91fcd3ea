"""LUT GEMM: products of real numbers with ±1 held as bits, by lookup tables, in float32.

Four numbers of a row have sixteen signed sums ±x0 ±x1 ±x2 ±x3: a table that fills one register.
Four bits of a column select one of them, and a permute instruction selects for sixteen columns at
once. A row's tables are computed once and serve all columns. The results are those of float32
summed in another order.

    out[m, n] = sum over l of x[m, l] · w[n, l]
"""

import numpy as np

from bnnrun.gemm.bits import TILE_PANELS
from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.instructions import HAS_TERNARY
from bnnrun.gemm.simd_f32 import add_floats, multiply_add, permute, scale
from bnnrun.gemm.vector import load, shift_by_four, store, zero

# Without a permute of sixteen lanes in one instruction, a product in float32 is faster.
HAS_LUT = HAS_TERNARY

TILE_ROWS = 4  # of a tile with TILE_PANELS panels, whose accumulators stay in registers
CHUNK_K = 256  # part of K whose tables stay in the first-level cache: 16 KiB for a tile
# SIGNS[16 j + i]: the sign of number j in sum i.
SIGNS = np.array([1 if i >> j & 1 else -1 for j in range(4) for i in range(16)], np.float32)


@njit(forceinline=True)
def _build_tables(x, at, count, tables, to):
    """Write the tables of `count` numbers of a row; those of TILE_ROWS rows alternate."""
    s0, s1 = load(SIGNS, 0), load(SIGNS, 16)
    s2, s3 = load(SIGNS, 32), load(SIGNS, 48)
    for i in range(at, at + count, 4):
        t = multiply_add(s1, x[i + 1], scale(s0, x[i]))
        t = multiply_add(s3, x[i + 3], multiply_add(s2, x[i + 2], t))
        store(tables, to, t)
        to += 16 * TILE_ROWS


@njit(forceinline=True)
def _row(s, table, i):
    """Add to a row's accumulators of TILE_PANELS panels what their indices select of its table."""
    return (
        add_floats(s[0], permute(table, i[0])),
        add_floats(s[1], permute(table, i[1])),
        add_floats(s[2], permute(table, i[2])),
        add_floats(s[3], permute(table, i[3])),
    )


@njit(forceinline=True)
def _load4(x, at, step):
    return load(x, at), load(x, at + step), load(x, at + 2 * step), load(x, at + 3 * step)


@njit(forceinline=True)
def _store4(x, at, v):
    store(x, at, v[0])
    store(x, at + 16, v[1])
    store(x, at + 32, v[2])
    store(x, at + 48, v[3])


@njit(forceinline=True)
def _multiply(tables, start, words, w, j, step, out, at, width):
    """Add the products of one chunk of K to a tile of `out`."""
    a, b = _load4(out, at, 16), _load4(out, at + width, 16)
    c, d = _load4(out, at + 2 * width, 16), _load4(out, at + 3 * width, 16)
    t = start
    for word in range(words):
        i = _load4(w, j + 16 * word, step)
        for _ in range(8):
            a = _row(a, load(tables, t), i)
            b = _row(b, load(tables, t + 16), i)
            c = _row(c, load(tables, t + 32), i)
            d = _row(d, load(tables, t + 48), i)
            i = shift_by_four(i[0]), shift_by_four(i[1]), shift_by_four(i[2]), shift_by_four(i[3])
            t += 16 * TILE_ROWS
    _store4(out, at, a)
    _store4(out, at + width, b)
    _store4(out, at + 2 * width, c)
    _store4(out, at + 3 * width, d)


@kernel()
def lut_gemm(x, m, w, kw, tasks_per_tile, out):
    """out = x · wᵀ.

    Shapes:
        x:              (m, 32 kw) float32, flat; m a multiple of TILE_ROWS; 0 past K
        w:              (panels, kw, 16) uint32, flat; a multiple of TILE_PANELS panels
        tasks_per_tile: tasks that share the panels of a tile of rows
        out:            (m, panels · 16) float32, flat
    """
    panels = w.size // (16 * kw)
    width, stride = 16 * panels, 32 * kw
    task_panels = (panels // TILE_PANELS + tasks_per_tile - 1) // tasks_per_tile * TILE_PANELS
    for task in prange(m // TILE_ROWS * tasks_per_tile):
        row, panel_begin = task // tasks_per_tile * TILE_ROWS, task % tasks_per_tile * task_panels
        panel_end = min(panels, panel_begin + task_panels)
        for i in range(row * width, (row + TILE_ROWS) * width, width):
            for n in range(16 * panel_begin, 16 * panel_end, 16):
                store(out, i + n, zero())
        tables = np.empty(16 * TILE_ROWS * CHUNK_K // 4 + 16, np.float32)
        start = (64 - tables.ctypes.data % 64) % 64 // 4  # aligned to cache lines
        for low in range(0, stride, CHUNK_K):
            count = min(CHUNK_K, stride - low)
            for r in range(TILE_ROWS):
                _build_tables(x, (row + r) * stride + low, count, tables, start + 16 * r)
            for p in range(panel_begin, panel_end, TILE_PANELS):
                j = 16 * (p * kw + low // 32)
                _multiply(
                    tables, start, count // 32, w, j, 16 * kw, out, row * width + 16 * p, width
                )
