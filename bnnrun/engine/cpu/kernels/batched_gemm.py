"""The float32 products of Winograd's filtering: one for each place of a tile.

For AVX-512 alone. torch's products are MKL's, which on processors that are not Intel's runs AVX2
code; with less than AVX-512 this kernel is no faster than that.
"""

from bnnrun.engine.cpu.kernels.tiles import PLACES
from bnnrun.gemm.bits import LANES
from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.instructions import HAS_TERNARY
from bnnrun.gemm.micro_kernel import tile_of_floats

HAS_BATCHED_GEMM = HAS_TERNARY
ROWS, VECTORS = 8, 2  # of a tile, which fills half of the registers
WIDTH = VECTORS * LANES
BLOCK_ROWS = 64  # rows that a thread takes at a time, a multiple of ROWS

_tile, _row = tile_of_floats(ROWS, VECTORS), tile_of_floats(1, VECTORS)
_narrow_tile, _narrow_row = tile_of_floats(ROWS, 1), tile_of_floats(1, 1)


@njit
def _multiply_block(a, i, row, step, b, j, n, depth, out, at, rows, adds):
    """Some rows of a product. Rows beyond whole tiles go one by one, and so does a last vector."""
    whole = rows - rows % ROWS
    for left in range(0, n, WIDTH):
        is_wide, k = left + WIDTH <= n, j + left
        for r in range(0, whole, ROWS):
            x, to = i + r * row, at + r * n + left
            if is_wide:
                _tile(a, x, row, step, b, k, n, depth, out, to, n, adds)
            else:
                _narrow_tile(a, x, row, step, b, k, n, depth, out, to, n, adds)
        for r in range(whole, rows):
            x, to = i + r * row, at + r * n + left
            if is_wide:
                _row(a, x, row, step, b, k, n, depth, out, to, n, adds)
            else:
                _narrow_row(a, x, row, step, b, k, n, depth, out, to, n, adds)


@kernel()
def batched_gemm(a, row, step, b, m, n, depth, out, adds):
    """out = a · b of each of PLACES matrices, added to what is there if `adds`.

    A sum has the order of `depth`, however many threads there are.

    Args:
        row, step: elements of a matrix of `a` from row to row, and from column to column: of
            (m, depth) `depth` and 1, of its transpose 1 and m

    Shapes, float32, flat: a (36, m · depth); b (36, depth, n); out (36, m, n); n a multiple of 16
    """
    blocks = (m + BLOCK_ROWS - 1) // BLOCK_ROWS
    for task in prange(PLACES * blocks):
        place, first = task // blocks, task % blocks * BLOCK_ROWS
        rows = min(BLOCK_ROWS, m - first)
        _multiply_block(
            a, place * m * depth + first * row, row, step, b, place * depth * n, n, depth,
            out, (place * m + first) * n, rows, adds,
        )  # fmt: skip
