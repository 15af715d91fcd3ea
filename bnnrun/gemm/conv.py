"""3x3 convolutions of ±1, or of bytes with ±1, by the products of cpu.py.

A thread gathers the patches of some pixels and multiplies them by every panel of the weights, so
that the array of all patches (im2col) is never in memory.
"""

import numpy as np

from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.cpu import (
    ALGORITHM_BITS,
    ALGORITHM_BYTES,
    codes,
    multiply_panel,
    pack_row_planes,
)
from bnnrun.gemm.simd_f32 import to_floats
from bnnrun.gemm.vector import (
    add,
    at_most,
    bits_at,
    largest,
    load,
    select,
    smallest,
    store,
    subtract,
    zero,
)


@njit
def _gather(image, origin, line, run, block, at):
    """Copy one 3x3 patch: three runs of an image, `line` apart, one after the other."""
    for _ in range(3):
        for k in range(run):
            block[at] = image[origin + k]
            at += 1
        origin += line


@njit
def _gather_rows(
    images, at, plane_size, line, run, origins, row_begin, row_end, kw, algorithm, planes, block,
    scratch,
):  # fmt: skip
    """Write patches `row_begin` to `row_end` of an image to `block`: rows of `multiply_panel`."""
    stride = kw * planes
    for r in range(row_begin, row_end):
        origin, to = at + origins[r], (r - row_begin) * stride
        if algorithm == ALGORITHM_BYTES:
            _gather(images, origin, line, run, block.view(np.uint8), 4 * to)
        elif plane_size:
            for plane in range(planes):
                _gather(images, origin + plane * plane_size, line, run, block, to + plane * kw)
        else:
            _gather(images, origin, line, run, scratch, 0)
            pack_row_planes(scratch, 0, 3 * run, block, to, kw, planes)


@njit
def _compare_at_border(
    accumulators, row_begin, row_end, thresholds, borders, p, panels, out, to, targets
):
    for r in range(row_begin, row_end):
        threshold = load(thresholds, 16 * (borders[r] * panels + p))
        out[to + targets[r] + p] = at_most(load(accumulators, 16 * (r - row_begin)), threshold)


@njit
def _compare_windows(
    accumulators, row_begin, row_end, thresholds, borders, p, panels, flip, out, to, targets
):
    """As `_compare_at_border`, with 2x2 max pooling: each four rows are one window."""
    for r in range(row_begin, row_end, 4):
        o = 16 * (r - row_begin)
        b0 = at_most(load(accumulators, o), load(thresholds, 16 * (borders[r] * panels + p)))
        b1 = at_most(
            load(accumulators, o + 16), load(thresholds, 16 * (borders[r + 1] * panels + p))
        )
        b2 = at_most(
            load(accumulators, o + 32), load(thresholds, 16 * (borders[r + 2] * panels + p))
        )
        b3 = at_most(
            load(accumulators, o + 48), load(thresholds, 16 * (borders[r + 3] * panels + p))
        )
        out[to + targets[r] + p] = (b0 | b1 | b2 | b3) & ~flip | (b0 & b1 & b2 & b3) & flip


@njit
def _compare_levels(
    accumulators, row_begin, row_end, thresholds, level, borders, p, panels, window, flip, bits,
    out, to, targets, plane,
):  # fmt: skip
    """The codes of `bits` bits (cpu.py), pooled where `window` is 4; `level` thresholds a level."""
    for r in range(row_begin, row_end, window):
        most = least = zero()
        for q in range(r, r + window):
            at, d = 16 * (borders[q] * panels + p), load(accumulators, 16 * (q - row_begin))
            c = codes(d, thresholds, at, level, bits)
            most, least = (c, c) if q == r else (largest(most, c), smallest(least, c))
        pooled = select(flip, least, most)
        for i in range(bits):
            out[to + targets[r] + p + (bits - 1 - i) * plane] = bits_at(pooled, i)


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
    kw,
    algorithm,
    planes,
    weight_planes,
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
                    first, `plane_size` elements apart; of uint8, plane_size is 0
        origins, borders, targets: (R,) int32, R a multiple of TILE_ROWS
        w:          (panels, weight_planes, kw, 16) uint32, flat
        thresholds: (2^bits - 1, border classes, panels · 16) int32, flat
        flips:      (panels,) uint16, a bit a column
        out:        (count, out_size) uint16, flat; bit planes of codes, the highest first, are
                    `out_plane` elements apart
        rows:       patches of a task, at most BAND_ROWS
    """
    panel_size = 16 * kw * weight_planes
    panels = w.size // panel_size
    bands = (origins.size + rows - 1) // rows
    stride, level = kw * planes, thresholds.size // ((1 << bits) - 1)
    for task in prange(count * bands):
        image, row_begin = task // bands, (task % bands) * rows
        row_end = min(origins.size, row_begin + rows)
        block = np.zeros(rows * stride, np.uint32)
        accumulators = np.empty(16 * rows, np.int32)
        scratch = np.empty(3 * run, np.uint8)
        _gather_rows(
            images, image * size, plane_size, line, run, origins, row_begin, row_end, kw, algorithm,
            planes, block, scratch,
        )  # fmt: skip
        to = image * out_size
        for p in range(panels):
            multiply_panel(
                block, 0, stride, row_end - row_begin, w, panel_size * p, kw, algorithm, planes,
                weight_planes, accumulators,
            )  # fmt: skip
            if bits > 1:
                _compare_levels(
                    accumulators, row_begin, row_end, thresholds, level, borders, p, panels,
                    4 if pool else 1, flips[p], bits, out, to, targets, out_plane,
                )  # fmt: skip
            elif pool:
                _compare_windows(
                    accumulators, row_begin, row_end, thresholds, borders, p, panels, flips[p], out,
                    to, targets,
                )  # fmt: skip
            else:
                _compare_at_border(
                    accumulators, row_begin, row_end, thresholds, borders, p, panels, out, to,
                    targets,
                )  # fmt: skip


@kernel()
def conv_preactivations(
    images, count, size, plane_size, origins, line, run, w, kw, planes, weight_planes, base,
    borders, out, rows,
):  # fmt: skip
    """Pre-activations of 3x3 convolutions of bits: base - 2 · accumulators, as float32.

    Shapes, otherwise as of `conv_bits`:
        base: (border classes, panels · 16) int32, flat
        out:  (count, R, panels · 16) float32, flat
    """
    panel_size = 16 * kw * weight_planes
    panels = w.size // panel_size
    bands = (origins.size + rows - 1) // rows
    stride = kw * planes
    for task in prange(count * bands):
        image, row_begin = task // bands, (task % bands) * rows
        row_end = min(origins.size, row_begin + rows)
        block = np.zeros(rows * stride, np.uint32)
        accumulators = np.empty(16 * rows, np.int32)
        none = np.empty(0, np.uint8)
        _gather_rows(
            images, image * size, plane_size, line, run, origins, row_begin, row_end, kw,
            ALGORITHM_BITS, planes, block, none,
        )  # fmt: skip
        for p in range(panels):
            multiply_panel(
                block, 0, stride, row_end - row_begin, w, panel_size * p, kw, ALGORITHM_BITS,
                planes, weight_planes, accumulators,
            )  # fmt: skip
            for r in range(row_begin, row_end):
                d = load(accumulators, 16 * (r - row_begin))
                s = subtract(load(base, 16 * (borders[r] * panels + p)), add(d, d))
                store(out, 16 * ((image * origins.size + r) * panels + p), to_floats(s))
