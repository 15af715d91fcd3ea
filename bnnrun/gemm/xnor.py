"""XNOR-popcount products of ±1 matrices on the processor: operands in layout, threads' tasks.

s = A · Wᵀ = K - 2 · popc(a ^ w),  or bits s >= t, which are popc(a ^ w) <= (K - t) / 2

A packed network's fully connected layers call these, and so does the benchmark of products.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.gemm import cpu, tiles
from bnnrun.gemm.bits import LANES, TILE_PANELS, Words, aligned, to_panels, words
from bnnrun.gemm.compiled import thread_count


@dataclass(frozen=True)
class Panels:
    """W in the layout that the kernels read, and how they multiply rows by it.

    Attributes:
        data:          (padded panels, weight_planes · kw, 16) uint32, or of bytes (padded panels,
                       kw, 64) int8
        n:             N, the columns
        planes:        bit planes of a row of A; 1 of bytes
        weight_planes: those of W; 1 of bytes
    """

    data: NDArray[Any]
    n: int
    planes: int = 1
    weight_planes: int = 1

    @property
    def kw(self) -> int:
        """Words of a plane of a column."""
        return int(self.data.shape[1]) // self.weight_planes

    @property
    def of_bytes(self) -> bool:
        """Whether rows of A hold bytes, and W signed bytes."""
        return self.data.dtype == np.int8

    @cached_property
    def pairs(self) -> NDArray[np.int64]:
        """The products of bit planes (tiles.plane_pairs)."""
        return tiles.plane_pairs(self.planes, self.weight_planes, self.kw)

    @property
    def row(self) -> int:
        """Words of a row of A."""
        return self.kw * self.planes

    @property
    def width(self) -> int:
        """Columns, with those that pad the last panel."""
        return -(-self.n // LANES) * LANES


def row_words(k: int) -> int:
    """Words of a row of `k` bits as the kernels read it: a multiple of 4."""
    return -(-words(k) // tiles.UNIT_WORDS) * tiles.UNIT_WORDS


def encode_weights(w: Words, planes: int = 1) -> Panels:
    """Bits of ±1, or bit planes of more levels, the highest first -> Panels.

    Shapes:
        w: (N, words) or (weight planes, N, words) uint32

    Args:
        planes: bit planes of a row of A
    """
    w = w.reshape(-1, *w.shape[-2:])
    weight_planes, n, used = w.shape
    kw = row_words(32 * used)
    rows = np.zeros((n, weight_planes, kw), np.uint32)
    rows[..., :used] = w.transpose(1, 0, 2)
    data = to_panels(rows.reshape(n, -1), weight_planes * kw)
    return Panels(data, n, planes, weight_planes)


def empty_rows(m: int, width: int) -> Words:
    """A buffer of zeros for `m` rows of `width` words, padded to the rows that are computed."""
    return aligned((padded_rows(m), width), np.uint32)


def padded_rows(m: int) -> int:
    """`m` rounded up to the rows that the kernels compute."""
    return -(-m // tiles.TILE_ROWS) * tiles.TILE_ROWS


def task_panels(m: int, panels: int) -> int:
    """Panels of a task, so that every thread gets tasks; for m rows and `panels` panels."""
    wanted = 4 * thread_count()
    bands = max(1, -(-m // cpu.BAND_ROWS))
    groups = -(-panels // TILE_PANELS)
    return TILE_PANELS * max(1, groups // -(-wanted // bands))


def multiply(a: Words, m: int, w: Panels, base: NDArray[np.int32], out: NDArray[np.int32]) -> None:
    """Write base - 2 · accumulators, of the first `m` rows: s = A · Wᵀ where every base is K.

    Of bit planes s is the product of the integers 2c - n, where every base is n_a n_w K.

    Shapes:
        a:    (padded m or more, w.row) uint32, as from `empty_rows`; of bytes (m or more, w.row)
        base: (w.width,) int32
        out:  (padded m or more, w.width or more) int32

    Raises:
        ValueError: a buffer of another dtype or layout, or too small
    """
    operands = _operands(a, m, w)
    _check("base", base[None], np.int32, 1, w.width)
    _check("out", out, np.int32, padded_rows(m), w.width)
    cpu.dense(*operands, base, out.ravel(), out.shape[1])


def multiply_to_bits(  # noqa: PLR0917
    a: Words,
    m: int,
    w: Panels,
    thresholds: NDArray[np.int32],
    out: Words,
    plane: int = 0,
) -> None:
    """Write bits accumulator <= threshold, or codes of several thresholds, of the first `m` rows.

    Shapes, otherwise as of `multiply`:
        thresholds: (w.width,) or (2^bits - 1, w.width) int32, as from `bits.popcount_thresholds`;
                    none above the one before it in its column; -1 in columns that pad
        out:        (padded m or more, N / 32 or more) uint32; of its last word, bits past
                    `w.width` are left as they are. Bit planes of codes, the highest first, are
                    `plane` words apart
    """
    operands = _operands(a, m, w)
    levels = thresholds.reshape(-1, thresholds.shape[-1])
    bits = len(levels).bit_length()
    if len(levels) != 2**bits - 1:
        raise ValueError(f"thresholds are {len(levels)} rows: expected 1, 3, 7 or 15")
    _check("thresholds", levels, np.int32, len(levels), w.width)
    _check("out", out, np.uint32, padded_rows(m), (bits - 1) * plane + words(w.width))
    halves = out.view(np.uint16)
    of_kernel = levels if bits > 1 else levels[0]
    cpu.dense_bits(*operands, of_kernel, bits, halves.ravel(), halves.shape[1], 2 * plane)


def _operands(a: Words, m: int, w: Panels) -> tuple[Any, ...]:
    """The arguments that `cpu.dense` and `cpu.dense_bits` have in common."""
    # Products of bytes have no tile of rows that pads.
    _check("A", a, np.uint32, m if w.of_bytes else padded_rows(m), w.row)
    return (
        a.ravel(), a.shape[1], m, w.data.ravel(), w.data[0].size, w.kw, w.pairs,
        task_panels(m, w.width // LANES),
    )  # fmt: skip


def _check(name: str, x: NDArray[Any], dtype: type[np.generic], rows: int, columns: int) -> None:
    """Raise ValueError unless the kernels, which check no bounds, can use `x`."""
    if (
        x.dtype != dtype
        or not x.flags.c_contiguous
        or x.ndim != 2
        or x.shape[0] < rows
        or x.shape[1] < columns
    ):
        raise ValueError(
            f"{name} is {x.dtype} {x.shape}: expected contiguous {np.dtype(dtype)}, "
            f"{(rows, columns)} or more"
        )
