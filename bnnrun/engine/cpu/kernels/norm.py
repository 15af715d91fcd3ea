"""Pooling, batch norm and Sign or ReLU over rows of pixels, channels innermost."""

import numpy as np

from bnnrun.engine.cpu.kernels.elementwise import ap2
from bnnrun.gemm.compiled import kernel, prange

# Rows per partial sum. Fixed, so the reduction order does not depend on the number of threads.
ROWS_PER_PART = 512
TASK_COLUMNS = 512  # a fully connected layer has few rows, so tasks split its columns too


@kernel()
def pool_kernel(s, width, p, argmax):
    """2x2 max pooling. Shapes: s (4 R, N), of images `width` pixels wide; p, argmax (R, N)."""
    half = width // 2
    for line in prange(len(p) // half):
        for x in range(half):
            r, i = line * half + x, 2 * line * width + 2 * x
            s0, s1, s2, s3 = s[i], s[i + 1], s[i + width], s[i + width + 1]
            for c in range(p.shape[1]):
                # Without branches: the compiler vectorizes the loop.
                largest = max(s0[c], s1[c], s2[c], s3[c])
                later = np.uint8(3) - np.uint8(s2[c] == largest)
                later = np.uint8(1) if s1[c] == largest else later
                p[r, c] = largest
                argmax[r, c] = np.uint8(0) if s0[c] == largest else later


@kernel()
def unpool_kernel(g, argmax, width, out):
    """Backward of `pool_kernel`: out is g at the argmax, else 0."""
    half, none = width // 2, np.float32(0)
    for line in prange(len(g) // half):
        for x in range(half):
            r, i = line * half + x, 2 * line * width + 2 * x
            for c in range(g.shape[1]):
                value, place = g[r, c], argmax[r, c]
                out[i, c] = value if place == 0 else none
                out[i + 1, c] = value if place == 1 else none
                out[i + width, c] = value if place == 2 else none
                out[i + width + 1, c] = value if place == 3 else none


@kernel()
def moment_kernel(p, parts):
    """Partial sums of p and p². Shapes: p (R, N) float32; parts (., 2, N) float64, zeros."""
    across = -(-p.shape[1] // TASK_COLUMNS)
    for task in prange(len(parts) * across):
        part, left = task // across, task % across * TASK_COLUMNS
        columns = slice(left, left + TASK_COLUMNS)
        total, squares = parts[part, 0, columns], parts[part, 1, columns]
        for r in range(part * ROWS_PER_PART, min(len(p), (part + 1) * ROWS_PER_PART)):
            row = p[r, columns]
            for c in range(row.size):
                x = np.float64(row[c])
                total[c] += x
                squares[c] += x * x


@kernel()
def shift_variance_kernel(p, mean, parts):
    """Partial sums of C · AP2(C), C = p - mean. Shapes: of `moment_kernel`; parts (., 1, N)."""
    across = -(-p.shape[1] // TASK_COLUMNS)
    for task in prange(len(parts) * across):
        part, left = task // across, task % across * TASK_COLUMNS
        columns = slice(left, left + TASK_COLUMNS)
        total, mean_of = parts[part, 0, columns], mean[columns]
        for r in range(part * ROWS_PER_PART, min(len(p), (part + 1) * ROWS_PER_PART)):
            row = p[r, columns]
            for c in range(row.size):
                off = row[c] - mean_of[c]
                total[c] += np.float64(off * ap2(off))


@kernel()
def activation_kernel(p, affine, floor, thresholds, a):
    """a = 2c - n, c the number of thresholds that y = (p - mean) · scale + beta reaches; of the one
    threshold 0 it is Sign(y). Of no threshold it is max(y, floor).

    Shapes: p, a (R, N); affine (3, N): mean, scale, beta; thresholds (n,)
    """
    none, up, n = np.float32(0), np.float32(2), np.float32(thresholds.size)
    for r in prange(len(p)):
        if thresholds.size == 0:
            for c in range(p.shape[1]):
                y = (p[r, c] - affine[0, c]) * affine[1, c] + affine[2, c]
                a[r, c] = max(y, floor)
            continue
        for c in range(p.shape[1]):
            y = (p[r, c] - affine[0, c]) * affine[1, c] + affine[2, c]
            a[r, c] = up - n if y >= thresholds[0] else -n
        # The row is in the first-level cache: computing y again costs less than storing it.
        for j in range(1, thresholds.size):
            for c in range(p.shape[1]):
                y = (p[r, c] - affine[0, c]) * affine[1, c] + affine[2, c]
                a[r, c] += up if y >= thresholds[j] else none


@kernel()
def evaluation_kernel(p, affine, relu, thresholds, a, saturated):
    """The kernel of `evaluate_norm_act`.

    Shapes: p, a (R, N); affine (3, N) and thresholds (n,) float64; saturated (parts,) int64
    """
    n = np.float64(thresholds.size)
    for part in prange(len(saturated)):
        count = 0
        for r in range(part * ROWS_PER_PART, min(len(p), (part + 1) * ROWS_PER_PART)):
            for c in range(p.shape[1]):
                y = (np.float64(p[r, c]) - affine[0, c]) * affine[1, c] + affine[2, c]
                level = 2.0 - n if y >= thresholds[0] else -n
                a[r, c] = np.float32(max(y, 0.0) if relu else level)
                count += abs(y) > 1
            for j in range(1, thresholds.size):
                for c in range(p.shape[1]):
                    y = (np.float64(p[r, c]) - affine[0, c]) * affine[1, c] + affine[2, c]
                    a[r, c] += np.float32(2 if y >= thresholds[j] else 0)
        saturated[part] = count


@kernel()
def gradient_sum_kernel(g, p, affine, shift, passing, parts):
    """Partial sums of g_y and g_y · C; g_y = g if passing[0] <= y <= passing[1], else 0.

    C = p - mean, or where `shift`, AP2(p - mean).

    Shapes: as of `moment_kernel` and `activation_kernel`
    """
    low, high = passing
    across = -(-p.shape[1] // TASK_COLUMNS)
    for task in prange(len(parts) * across):
        part, left = task // across, task % across * TASK_COLUMNS
        columns = slice(left, left + TASK_COLUMNS)
        total, products = parts[part, 0, columns], parts[part, 1, columns]
        mean, scale, beta = affine[0, columns], affine[1, columns], affine[2, columns]
        for r in range(part * ROWS_PER_PART, min(len(p), (part + 1) * ROWS_PER_PART)):
            p_r, g_r = p[r, columns], g[r, columns]
            for c in range(p_r.size):
                off = p_r[c] - mean[c]
                y = off * scale[c] + beta[c]
                g_y = g_r[c] if (low <= y) & (y <= high) else np.float32(0)
                total[c] += np.float64(g_y)
                products[c] += np.float64(g_y * (ap2(off) if shift else off))


@kernel()
def gradient_kernel(g, p, affine, shift, coefficients, passing, out):
    """out = k0 · g_y + k1 + k2 · p, or where `shift`, + k2 · AP2(p - mean).

    Shapes: coefficients (3, N): k0, k1, k2
    """
    low, high = passing
    for r in prange(len(p)):
        for c in range(p.shape[1]):
            off = p[r, c] - affine[0, c]
            y = off * affine[1, c] + affine[2, c]
            g_y = g[r, c] if (low <= y) & (y <= high) else np.float32(0)
            x = ap2(off) if shift else p[r, c]
            out[r, c] = coefficients[0, c] * g_y + (coefficients[1, c] + coefficients[2, c] * x)
