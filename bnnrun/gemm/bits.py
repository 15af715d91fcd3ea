"""The bit layout.

Bit 1 is +1 and bit 0 is -1; Sign(0) = +1. Element j of a row is bit j mod 32 of word j div 32.
Bits past the end of a row are 0, on both sides of a product, so they never differ, and K is the
row's true length.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
LANES = 16  # columns of a panel
TILE_PANELS = 4  # panels that are multiplied together; W has a multiple of them


def words(k: int) -> int:
    """Words of 32 bits that hold `k` bits."""
    return -(-k // 32)


def pack(x: NDArray[Any]) -> Words:
    """Signs of the last axis as bits: x >= 0, or True, is 1.

    Shapes:
        x:       (..., K) floating, signed or boolean
        returns  (..., ceil(K / 32)) uint32

    Raises:
        TypeError: unsigned numbers, which have no sign
    """
    if x.dtype.kind not in "fib":
        raise TypeError(f"pack: {x.dtype} has no sign; expected float, int or bool")
    signs = x if x.dtype == np.bool_ else x >= 0
    k = x.shape[-1]
    packed = np.zeros((*x.shape[:-1], 4 * words(k)), np.uint8)
    packed[..., : -(-k // 8)] = np.packbits(signs, axis=-1, bitorder="little")
    return packed.view("<u4").astype(np.uint32, copy=False)


def unpack(packed: Words, k: int) -> NDArray[np.int8]:
    """±1 of the bits: (..., words) uint32 -> (..., k) int8."""
    return (2 * unpack_bits(packed, k).view(np.int8) - 1).astype(np.int8, copy=False)


def unpack_bits(packed: Words, k: int) -> NDArray[np.uint8]:
    """0 or 1 of the bits: (..., words) uint32 -> (..., k) uint8."""
    in_order = np.ascontiguousarray(packed).astype("<u4", copy=False).view(np.uint8)
    return np.unpackbits(in_order, axis=-1, count=k, bitorder="little")


def clean_tail(packed: Words, k: int) -> bool:
    """Whether all bits past the first `k` of each row are 0."""
    used = k % 32
    return used == 0 or not np.any(packed[..., -1] >> np.uint32(used))


def popcount_thresholds(t: NDArray[np.integer], k: int) -> NDArray[np.int32]:
    """The largest popcount d with s = k - 2 d >= t, as int32; -1 where no s reaches t."""
    return ((k - t.astype(np.int64)) >> 1).clip(-1, 2**30).astype(np.int32)


def aligned(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Zeros aligned to 64 bytes, a cache line, so that no vector crosses two.

    64 bytes past the last element may be read.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = np.zeros(size + 128, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + size].view(dtype).reshape(shape)


def padded_panels(n: int) -> int:
    """Panels of `n` columns, with those that pad the last tile."""
    return -(-n // (LANES * TILE_PANELS)) * TILE_PANELS


def to_panels(rows: Words, kw: int) -> Words:
    """Rows in the layout of the processor's kernels: sixteen side by side, word by word.

    Shapes:
        rows:    (N, words) uint32, words <= kw
        returns  (padded_panels(N), kw, 16) uint32; rows past N and words past `words` are 0
    """
    n, used = rows.shape
    panels = padded_panels(n)
    padded = np.zeros((panels * LANES, kw), np.uint32)
    padded[:n, :used] = rows
    out = aligned((panels, kw, LANES), np.uint32)
    out[...] = padded.reshape(panels, LANES, kw).transpose(0, 2, 1)
    return out
