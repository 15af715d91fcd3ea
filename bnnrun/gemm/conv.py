"""3x3 convolutions of ±1, or of bytes with ±1, by the products of cpu.py.

A thread gathers the patches of some pixels and multiplies them by every panel of the weights, so
that the array of all patches (im2col) is never in memory.
"""

import numpy as np

from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.cpu import ALGORITHM_BITS, ALGORITHM_BYTES, multiply_panel, pack_row_planes
from bnnrun.gemm.simd_f32 import to_floats
from bnnrun.gemm.vector import add, at_most, load, store, subtract


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
    images, at, line, run, origins, row_begin, row_end, kw, algorithm, planes, block, scratch
):
    """Write patches `row_begin` to `row_end` of an image to `block`: rows of `multiply_panel`."""
    stride = kw * max(1, planes)
    for r in range(row_begin, row_end):
        origin, to = at + origins[r], (r - row_begin) * stride
        if planes:
            _gather(images, origin, line, run, scratch, 0)
            pack_row_planes(scratch, 0, 3 * run, block, to, kw, planes)
        elif algorithm == ALGORITHM_BYTES:
            _gather(images, origin, line, run, block.view(np.uint8), 4 * to)
        else:
            _gather(images, origin, line, run, block, to)


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


@kernel()
def conv_bits(
    images,
    count,
    size,
    origins,
    line,
    run,
    w,
    kw,
    algorithm,
    planes,
    thresholds,
    borders,
    pool,
    flips,
    out,
    out_size,
    targets,
    rows,
):
    """3x3 convolutions to bits. A thread holds at most `rows` patches in memory.

    For each patch of an image, `origins` is where it begins, `borders` which thresholds apply to
    it (they differ at the border, where taps lie on padding), `targets` where its bits are
    written. With `pool`, four patches in a row are one pooling window: its bit is the OR of their
    bits, and in the columns of `flips`, whose weights were negated, the AND.

    Shapes:
        images:     (count, size) uint32 words of bits, or uint8 in the first layer, flat; padded,
                    channels innermost; `line` elements from one row of pixels to the next, `run`
                    elements in three pixels
        origins, borders, targets: (R,) int32, R a multiple of TILE_ROWS
        w:          (panels, kw, 16) uint32, flat
        thresholds: (border classes, panels · 16) int32, flat
        flips:      (panels,) uint16, a bit a column
        out:        (count, out_size) uint16, flat
        rows:       patches of a task, at most BAND_ROWS
    """
    panels = w.size // (16 * kw)
    bands = (origins.size + rows - 1) // rows
    stride = kw * max(1, planes)
    for task in prange(count * bands):
        image, row_begin = task // bands, (task % bands) * rows
        row_end = min(origins.size, row_begin + rows)
        block = np.zeros(rows * stride, np.uint32)
        accumulators = np.empty(16 * rows, np.int32)
        scratch = np.empty(3 * run, np.uint8)
        _gather_rows(
            images, image * size, line, run, origins, row_begin, row_end, kw, algorithm, planes,
            block, scratch,
        )  # fmt: skip
        to = image * out_size
        for p in range(panels):
            multiply_panel(
                block, 0, stride, row_end - row_begin, w, 16 * kw * p, kw, algorithm, planes,
                accumulators,
            )  # fmt: skip
            if pool:
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
def conv_preactivations(images, count, size, origins, line, run, w, kw, base, borders, out, rows):
    """Pre-activations of 3x3 convolutions of bits: base - 2 · popc(a ^ w), as float32.

    Shapes, otherwise as of `conv_bits`:
        base: (border classes, panels · 16) int32, flat
        out:  (count, R, panels · 16) float32, flat
    """
    panels = w.size // (16 * kw)
    bands = (origins.size + rows - 1) // rows
    for task in prange(count * bands):
        image, row_begin = task // bands, (task % bands) * rows
        row_end = min(origins.size, row_begin + rows)
        block = np.zeros(rows * kw, np.uint32)
        accumulators = np.empty(16 * rows, np.int32)
        none = np.empty(0, np.uint8)
        _gather_rows(
            images, image * size, line, run, origins, row_begin, row_end, kw, ALGORITHM_BITS, 0,
            block, none,
        )  # fmt: skip
        for p in range(panels):
            multiply_panel(
                block, 0, kw, row_end - row_begin, w, 16 * kw * p, kw, ALGORITHM_BITS, 0,
                accumulators,
            )  # fmt: skip
            for r in range(row_begin, row_end):
                d = load(accumulators, 16 * (r - row_begin))
                s = subtract(load(base, 16 * (borders[r] * panels + p)), add(d, d))
                store(out, 16 * ((image * origins.size + r) * panels + p), to_floats(s))
