"""3x3 convolutions of ±1, or of bytes with ±1, by the products of cpu.py: no array of patches.

A thread gathers the patches of some pixels, and multiplies them by every panel of weights.
"""

import numpy as np

from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.cpu import ALGORITHM_BITS, ALGORITHM_BYTES, multiply_panel, pack_row_planes
from bnnrun.gemm.simd_f32 import to_floats
from bnnrun.gemm.vector import add, at_most, load, store, subtract


@njit
def _gather(image, origin, line, run, block, at):
    """One row of a convolution: three runs of an image, `line` apart, one behind the other."""
    for _ in range(3):
        for k in range(run):
            block[at] = image[origin + k]
            at += 1
        origin += line


@njit
def _gather_rows(
    images, at, line, run, origins, row_begin, row_end, kw, algorithm, planes, block, scratch
):
    """Rows `row_begin` to `row_end` of an image's table to `block`, as the kernel reads them."""
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
    """As above, each four rows a window of the pooling."""
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
    """3x3 convolutions to bits; in each thread no more than `rows` patches ever lie in memory.

    A table gives the rows of an image: where the patch begins, which limits hold for it (they
    differ at the border, where taps lie on padding), where its bits go. With `pool` each four
    rows are a window of the pooling, and one bit of theirs is enough; all four are needed in the
    columns of `flips`, whose weights were negated: the largest sum is the smallest there.

    Shapes:
        images:  (count, size) uint32 words of bits, or uint8 of the first layer, padded, flat;
                 pixel by pixel, channels innermost; `line` apart from one row of pixels to the
                 next, `run` for three pixels
        origins, borders, targets: (R,) int32, R a multiple of TILE
        w:       (panels, kw, 16) uint32, flat
        thresholds:  (borders, panels · 16) int32, flat
        flips:   (panels,) uint16, bits of columns
        out:     (count, out_size) uint16, flat
        rows:    of a task, at most BAND
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
            images,
            image * size,
            line,
            run,
            origins,
            row_begin,
            row_end,
            kw,
            algorithm,
            planes,
            block,
            scratch,
        )
        to = image * out_size
        for p in range(panels):
            multiply_panel(
                block,
                0,
                stride,
                row_end - row_begin,
                w,
                16 * kw * p,
                kw,
                algorithm,
                planes,
                accumulators,
            )
            if pool:
                _compare_windows(
                    accumulators,
                    row_begin,
                    row_end,
                    thresholds,
                    borders,
                    p,
                    panels,
                    flips[p],
                    out,
                    to,
                    targets,
                )
            else:
                _compare_at_border(
                    accumulators,
                    row_begin,
                    row_end,
                    thresholds,
                    borders,
                    p,
                    panels,
                    out,
                    to,
                    targets,
                )


@kernel()
def conv_preactivations(images, count, size, origins, line, run, w, kw, base, borders, out, rows):
    """3x3 convolutions of bits to their sums, base - 2 · (bits that differ), as float32.

    Shapes, those of `conv_bits` but:
        base: (borders, panels · 16) int32, flat
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
            images,
            image * size,
            line,
            run,
            origins,
            row_begin,
            row_end,
            kw,
            ALGORITHM_BITS,
            0,
            block,
            none,
        )
        for p in range(panels):
            multiply_panel(
                block,
                0,
                kw,
                row_end - row_begin,
                w,
                16 * kw * p,
                kw,
                ALGORITHM_BITS,
                0,
                accumulators,
            )
            for r in range(row_begin, row_end):
                d = load(accumulators, 16 * (r - row_begin))
                s = subtract(load(base, 16 * (borders[r] * panels + p)), add(d, d))
                store(out, 16 * ((image * origins.size + r) * panels + p), to_floats(s))
