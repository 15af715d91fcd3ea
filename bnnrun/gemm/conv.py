"""3x3 convolutions of ±1, or of bytes with ±1, by the products of tiles.py.

A thread gathers the patches of some pixels and multiplies them by every panel of the weights, so
that the array of all patches (im2col) is never in memory.
"""

import numpy as np

from bnnrun.gemm.bits import LANES
from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.cpu import pack_row_planes, planes_of, write_planes
from bnnrun.gemm.instructions import VECTOR_BYTES
from bnnrun.gemm.simd_f32 import to_floats
from bnnrun.gemm.tiles import product
from bnnrun.gemm.vector import (
    add,
    at_most,
    compile_small,
    copy_vectors,
    load,
    store,
    subtract,
)


@njit(forceinline=True)
def _gather(image, origin, line, run, block, at):
    """Copy one 3x3 patch: three runs of an image, `line` apart, one after the other."""
    for _ in range(3):
        copy_vectors(block, at, image, origin, run)
        at, origin = at + run, origin + line


@njit
def _gather_rows(
    images, at, plane_size, line, run, origins, row_begin, row_end, kw, planes, block, scratch
):
    """Write patches `row_begin` to `row_end` of an image to `block`: rows of tiles.py."""
    compile_small()
    stride, of_word = kw * planes, 4 // images.itemsize
    for r in range(row_begin, row_end):
        origin, to = at + origins[r], (r - row_begin) * stride
        if plane_size == 0:
            _gather(images, origin, line, run, scratch, 0)
            pack_row_planes(scratch, 0, 3 * run, block, to, kw, planes)
            continue
        for _ in range(planes):
            _gather(images, origin, line, run, block, of_word * to)
            for k in range(to + (3 * run + of_word - 1) // of_word, to + kw):
                block[k] = 0
            origin, to = origin + plane_size, to + kw


@njit(forceinline=True)
def _threshold(thresholds, borders, r, p, panels, begin):
    return load(thresholds, begin + 16 * (borders[r] * panels + p))


@njit(forceinline=True)
def _pooled(b0, b1, b2, b3, flip):
    """Bits of a pooling window: the OR of its four patches', in the columns of `flip` the AND."""
    return (b0 | b1 | b2 | b3) & ~flip | (b0 & b1 & b2 & b3) & flip


@njit(forceinline=True)
def _compare(
    d0, d1, d2, d3, r, _, p, thresholds, level, borders, panels, pool, flips, bits, out, at,
    targets, plane,
):  # fmt: skip
    """Write bits, or codes, of four patches with panel p, or of the one pooling window they are."""
    at += p
    if thresholds.ndim > 1:
        _compare_levels(
            d0, d1, d2, d3, r, p, thresholds, level, borders, panels, pool, flips, bits, out, at,
            targets, plane,
        )  # fmt: skip
        return
    b0 = at_most(d0, _threshold(thresholds, borders, r, p, panels, 0))
    b1 = at_most(d1, _threshold(thresholds, borders, r + 1, p, panels, 0))
    b2 = at_most(d2, _threshold(thresholds, borders, r + 2, p, panels, 0))
    b3 = at_most(d3, _threshold(thresholds, borders, r + 3, p, panels, 0))
    if pool:
        out[at + targets[r]] = _pooled(b0, b1, b2, b3, flips[p])
    else:
        out[at + targets[r]] = b0
        out[at + targets[r + 1]] = b1
        out[at + targets[r + 2]] = b2
        out[at + targets[r + 3]] = b3


@njit(forceinline=True)
def _compare_levels(
    d0, d1, d2, d3, r, p, thresholds, level, borders, panels, pool, flips, bits, out, at, targets,
    plane,
):  # fmt: skip
    """As `_compare`, codes of `bits` bits; `level` thresholds a level."""
    c0 = c1 = c2 = c3 = np.uint64(0)
    for j in range((1 << bits) - 1):
        b0 = at_most(d0, _threshold(thresholds, borders, r, p, panels, j * level))
        b1 = at_most(d1, _threshold(thresholds, borders, r + 1, p, panels, j * level))
        b2 = at_most(d2, _threshold(thresholds, borders, r + 2, p, panels, j * level))
        b3 = at_most(d3, _threshold(thresholds, borders, r + 3, p, panels, j * level))
        if pool:
            b0 = _pooled(b0, b1, b2, b3, flips[p])
        c0 ^= planes_of(b0, j)
        c1 ^= planes_of(b1, j)
        c2 ^= planes_of(b2, j)
        c3 ^= planes_of(b3, j)
    write_planes(c0, bits, out, at + targets[r], plane)
    if not pool:
        write_planes(c1, bits, out, at + targets[r + 1], plane)
        write_planes(c2, bits, out, at + targets[r + 2], plane)
        write_planes(c3, bits, out, at + targets[r + 3], plane)


@njit(forceinline=True)
def _preactivations(d0, d1, d2, d3, r, _, p, base, borders, panels, out, begin):
    """Write base - 2 d of four patches with panel p, as float32."""
    _preactivation(d0, r, p, base, borders, panels, out, begin)
    _preactivation(d1, r + 1, p, base, borders, panels, out, begin)
    _preactivation(d2, r + 2, p, base, borders, panels, out, begin)
    _preactivation(d3, r + 3, p, base, borders, panels, out, begin)


@njit(forceinline=True)
def _preactivation(d, r, p, base, borders, panels, out, begin):
    s = subtract(load(base, 16 * (borders[r] * panels + p)), add(d, d))
    store(out, 16 * ((begin + r) * panels + p), to_floats(s))


_multiply_to_bits = product(_compare, whole_tiles=True)
_multiply = product(_preactivations, whole_tiles=True)


@kernel()
def conv_bits(
    images,
    count,
    size,
    plane_size,
    origins,
    line,
    run,
    w,
    panel_size,
    kw,
    planes,
    pairs,
    thresholds,
    bits,
    borders,
    pool,
    flips,
    out,
    out_size,
    out_plane,
    targets,
    rows,
):
    """3x3 convolutions to bits, or to codes. A thread holds at most `rows` patches in memory.

    For each patch of an image, `origins` is where it begins, `borders` which thresholds apply to
    it (they differ at the border, where taps lie on padding), `targets` where its bits are
    written. With `pool`, four patches in a row are one pooling window: its bit is the OR of their
    bits, and in the columns of `flips`, whose weights were negated, the AND.

    Shapes:
        images:     (count, size) uint32 words of bits, or uint8 in the first layer, flat; padded,
                    channels innermost; `line` elements from one row of pixels to the next, `run`
                    elements in three pixels. An image of words is `planes` bit planes, the highest
                    first, `plane_size` elements apart. Of uint8, plane_size is 0 if the patches are
                    packed to bit planes, else planes is 1
        origins, borders, targets: (R,) int32, R a multiple of TILE_ROWS
        w:          (panels, weight planes, kw, 16) uint32, flat, a multiple of TILE_PANELS panels;
                    `panel_size` a panel. Of bytes (panels, kw, 64) int8
        thresholds: (border classes · panels · 16,) int32; for codes (2^bits - 1, border classes ·
                    panels · 16), none above the one before it
        flips:      (panels,) uint16, a bit a column
        out:        (count, out_size) uint16, flat; bit planes of codes, the highest first, are
                    `out_plane` elements apart
        rows:       patches of a task, a multiple of TILE_ROWS
    """
    panels = flips.size
    bands = (origins.size + rows - 1) // rows
    stride, level = kw * planes, thresholds.size // ((1 << bits) - 1)
    for task in prange(count * bands):
        image, row_begin = task // bands, (task % bands) * rows
        row_end = min(origins.size, row_begin + rows)
        block = np.empty(rows * stride + LANES, np.uint32)
        scratch = np.empty(3 * run + VECTOR_BYTES, np.uint8)
        _gather_rows(
            images, image * size, plane_size, line, run, origins, row_begin, row_end, kw,
            planes, block, scratch,
        )  # fmt: skip
        target = (
            thresholds, level, borders, panels, pool, flips, bits, out, image * out_size, targets,
            out_plane,
        )  # fmt: skip
        _multiply_to_bits(
            block, 0, stride, row_begin, row_end, w, 0, panels, panel_size, kw, pairs,
            target,
        )  # fmt: skip


@kernel()
def conv_preactivations(
    images, count, size, plane_size, origins, line, run, w, panel_size, kw, planes, pairs, base,
    borders, out, rows,
):  # fmt: skip
    """Pre-activations of 3x3 convolutions of bits: base - 2 · accumulators, as float32.

    Shapes, otherwise as of `conv_bits`:
        base: (border classes, panels · 16) int32, flat
        out:  (count, R, panels · 16) float32, flat
    """
    panels = out.size // (LANES * count * origins.size)
    bands = (origins.size + rows - 1) // rows
    stride = kw * planes
    for task in prange(count * bands):
        image, row_begin = task // bands, (task % bands) * rows
        row_end = min(origins.size, row_begin + rows)
        block = np.empty(rows * stride + LANES, np.uint32)
        none = np.empty(0, np.uint8)
        _gather_rows(
            images, image * size, plane_size, line, run, origins, row_begin, row_end, kw,
            planes, block, none,
        )  # fmt: skip
        _multiply(
            block, 0, stride, row_begin, row_end, w, 0, panels, panel_size, kw, pairs,
            (base, borders, panels, out, image * origins.size),
        )  # fmt: skip
