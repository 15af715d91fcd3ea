"""Adam's whole update in one pass over memory, on the processor.

The update is a stream: gradient, m, v and w are read once, m, v and w written once. Written as
tensor operations it passes over memory some fifteen times.
"""

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BLOCK = 1 << 14  # elements: a block of the four arrays fits the second-level cache


@numba.njit(parallel=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def adam_update(w: Floats, g: Floats, m: Floats, v: Floats, constants: Floats, clip: bool) -> None:
    """w <- clip(w - step · m / (sqrt(v) + eps)), m and v updated before; see optim.Adam.

    Each element depends on itself alone: the result is the same for any number of threads.

    Shapes:
        w, g, m, v: (n,) float32; w, m and v are changed
        constants:  (6,) float32: b1, 1 - b1, b2, 1 - b2, step (scale and rate included), eps
    """
    b1, b1_rest, b2, b2_rest, step, eps = constants
    one = np.float32(1)
    for block in numba.prange((w.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(w.size, (block + 1) * BLOCK)):
            mi = b1 * m[i] + b1_rest * g[i]
            vi = b2 * v[i] + b2_rest * (g[i] * g[i])
            m[i] = mi
            v[i] = vi
            wi = w[i] - step * (mi / (np.sqrt(vi) + eps))
            if clip:
                wi = min(one, max(-one, wi))
            w[i] = wi
