"""The product of ±1 matrices by definition: unpacked, multiplied and summed in integers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.gemm.bits import Words, pack, unpack


def multiply(a: Words, w: Words, k: int) -> NDArray[np.int32]:
    """s = A · Wᵀ.

    Shapes:
        a:       (M, ceil(k / 32)) uint32, bits of ±1
        w:       (N, ceil(k / 32)) uint32
        returns  (M, N) int32, in [-k, k]
    """
    return integer_product(unpack(a, k), unpack(w, k), k)


def integer_product(a: NDArray[np.integer], w: NDArray[np.int8], largest: int) -> NDArray[np.int32]:
    """A · Wᵀ of integers, where no sum or partial sum exceeds `largest` in magnitude.

    Computed in float32 (float64): exact for integers below 2^24 (2^53), and many times as fast as
    NumPy's integer product.
    """
    dtype: type[np.floating[Any]] = np.float32 if largest < 2**24 else np.float64
    product: NDArray[Any] = a.astype(dtype) @ w.astype(dtype).T
    return product.astype(np.int32)


def threshold(s: NDArray[np.int32], t: NDArray[np.int32], flip: NDArray[np.bool_]) -> Words:
    """Bits of the pre-activations: s >= t, or s <= t where `flip`.

    Shapes:
        s:       (M, N) int32
        t, flip: (N,)
        returns  (M, ceil(N / 32)) uint32
    """
    return pack(np.where(flip, s <= t, s >= t))
