"""Fused elementwise kernels: one read and one write of memory, where tensor code needs several.

Each element is computed independently, so the results do not depend on the number of threads.
"""

import numpy as np
from numpy.typing import NDArray

from bnnrun.gemm.compiled import kernel, njit, prange

Floats = NDArray[np.float32]

# Far below what moves a float32 weight, far above the subnormal numbers that processors are slow
# at: after a saturated hinge loss most gradients are 0, and m and v would decay to such numbers.
# Smaller ones are set to 0.
TINY = np.float32(1e-30)
TINY_ROOT = np.float32(1e-15)
STRETCH = 2048  # elements that are compared with one threshold after the other, in a cache


@kernel()
def level_kernel(r: Floats, thresholds: Floats, out: Floats) -> None:
    """out <- 2c - n, c the number of the n thresholds that r reaches; of one, 0, it is Sign(r).

    Shapes: r, out (size,); thresholds (n,)
    """
    n = np.float32(thresholds.size)
    up, none = np.float32(2), np.float32(0)
    for part in prange((r.size + STRETCH - 1) // STRETCH):
        begin = part * STRETCH
        end = min(r.size, begin + STRETCH)
        for i in range(begin, end):
            out[i] = up - n if r[i] >= thresholds[0] else -n
        for j in range(1, thresholds.size):
            for i in range(begin, end):
                out[i] += up if r[i] >= thresholds[j] else none


@njit(inline="always", error_model="numpy")
def adam_element(w, g, m, v, b1, b1_rest, b2, b2_rest, step, eps, bound):  # type: ignore[no-untyped-def]
    """(w, m, v) after Adam's step from gradient `g`; see `adam_kernel`."""
    zero = np.float32(0)
    if abs(g) < TINY_ROOT:
        g = zero
    m = b1 * m + b1_rest * g
    if abs(m) < TINY:
        m = zero
    v = b2 * v + b2_rest * (g * g)
    if v < TINY:
        v = zero
    w = min(bound, max(-bound, w - step * (m / (np.sqrt(v) + eps))))
    return w, m, v


# One argument each: with arrays unpacked from a tuple, Numba 0.68 loses the writes to w.
@kernel(error_model="numpy")
def adam_kernel(w: Floats, g: Floats, m: Floats, v: Floats, constants: Floats, clip: bool) -> None:
    """Adam's whole update: m, v, then w <- clip(w - step · m / (sqrt(v) + eps)); optim.Adam.

    Shapes:
        w, g, m, v: (n,) float32; w, m and v are changed
        constants:  (6,) float32: b1, 1 - b1, b2, 1 - b2, step (scale and rate included), eps
    """
    b1, b1_rest, b2, b2_rest, step, eps = constants
    bound = np.float32(1) if clip else np.float32(np.inf)
    # One flat loop without branches: the compiler vectorizes it.
    for i in prange(w.size):
        w[i], m[i], v[i] = adam_element(
            w[i], g[i], m[i], v[i], b1, b1_rest, b2, b2_rest, step, eps, bound
        )


@njit(inline="always")
def ap2(x):  # type: ignore[no-untyped-def]
    """norm.ap2 of one float32: rounds its bits to a power of two."""
    carried = np.float32(x).view(np.int32) + np.int32(0x80_0000 - 0x35_04F4)
    return np.int32(carried & np.int32(~0x7F_FFFF)).view(np.float32)


@kernel(error_model="numpy")
def adamax_kernel(
    w: Floats, g: Floats, m: Floats, u: Floats, constants: Floats, clip: bool, by_code: bool
) -> None:
    """Shift-based AdaMax's whole update, by either rule; optim.ShiftAdaMax.

    Shapes:
        w, g, m, u: (n,) float32; w, m and u are changed
        constants:  (5,) float32: 1 - b1, b2, step (scale and rate included), what `code` adds to
                    u, what `paper` takes for no gradient
    """
    b1_rest, b2, step, added, least = constants
    zero, one = np.float32(0), np.float32(1)
    bound = one if clip else np.float32(np.inf)
    for i in prange(w.size):
        m[i] = m[i] + b1_rest * (g[i] - m[i])
        largest = max(b2 * u[i], abs(g[i]))
        if by_code:
            u[i] = ap2(largest) + added
            moved = m[i] / u[i]
        else:
            u[i] = largest
            moved = m[i] * ap2(one / largest) if largest >= least else zero
        w[i] = min(bound, max(-bound, w[i] - step * moved))


@njit(inline="always")
def _random_bits(key, i):  # type: ignore[no-untyped-def]
    """32 random bits of element i: sampling.extend(key, i) >> 32."""
    z = np.uint64(key) + np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) >> np.uint64(32)


# Elements lie pixel by pixel, channels innermost, and are numbered channel by channel: element
# (b, c, p) of a row (b, p) is (b · channels + c) · pixels + p. Of one pixel, as in two dimensions,
# that is how they lie, and the one flat loop becomes vector code.


@njit(inline="always")
def _sample(r, bits):  # type: ignore[no-untyped-def]
    """+1 where the bits are below p · 2^32, else -1."""
    below = np.float64(bits) < (np.float64(r) + 1.0) * 2.0**31
    return np.float32(1) if below else np.float32(-1)


@kernel()
def sample_kernel(r: Floats, out: Floats, channels: int, pixels: int, key: int) -> None:
    """out <- +1 with probability clip((r + 1) / 2, 0, 1), else -1. Shapes: (n,) both."""
    if pixels == 1:
        for i in prange(r.size):
            out[i] = _sample(r[i], _random_bits(key, i))
        return
    for row in prange(r.size // channels):
        begin = row // pixels * channels * pixels + row % pixels
        for c in range(channels):
            at = row * channels + c
            out[at] = _sample(r[at], _random_bits(key, begin + c * pixels))


@kernel()
def dropout_kernel(
    a: Floats,
    out: Floats,
    mask: NDArray[np.bool_],
    channels: int,
    pixels: int,
    threshold: int,
    scale: float,
    key: int,
) -> None:
    """mask <- bits >= threshold; out <- a · scale where mask, else 0. Shapes: (n,) all."""
    if pixels == 1:
        for i in prange(a.size):
            mask[i] = _random_bits(key, i) >= np.uint64(threshold)
            out[i] = a[i] * np.float32(scale) if mask[i] else np.float32(0)
        return
    for row in prange(a.size // channels):
        begin = row // pixels * channels * pixels + row % pixels
        for c in range(channels):
            at = row * channels + c
            mask[at] = _random_bits(key, begin + c * pixels) >= np.uint64(threshold)
            out[at] = a[at] * np.float32(scale) if mask[at] else np.float32(0)


@kernel()
def mask_kernel(g: Floats, mask: NDArray[np.bool_], scale: float, out: Floats) -> None:
    """out <- g · scale where mask, else 0. Shapes: (n,) all."""
    for i in prange(g.size):
        out[i] = g[i] * np.float32(scale) if mask[i] else np.float32(0)
