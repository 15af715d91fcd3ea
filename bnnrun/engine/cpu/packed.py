"""Products with W^b in training, on the processor, from packed weights.

Products of ±1, or of bit planes, use XNOR and popcount and are exact; those of real numbers use
lookup tables (LUT) in float32, where the processor has the instructions (gemm/lut_gemm.py).
Gradients are in products.py.
"""

import numpy as np
import torch

from bnnrun.architecture import Layer
from bnnrun.engine.cpu.kernels.packing import pack_filters, pack_images, pack_rows, pack_weights
from bnnrun.engine.memory import empty, flat
from bnnrun.gemm import lut_gemm
from bnnrun.gemm.bits import LANES, Words, aligned, padded_panels, words
from bnnrun.gemm.compiled import thread_count
from bnnrun.gemm.conv import conv_preactivations
from bnnrun.gemm.cpu import BAND_ROWS
from bnnrun.gemm.masked_xnor import masked_xnor
from bnnrun.gemm.tiles import TILE_ROWS, plane_pairs
from bnnrun.gemm.xnor import padded_rows, row_words
from bnnrun.runtime.model import borders


class PackedWeights:
    """Sign(W) of a fully connected layer as bits, by row and by column.

    Attributes:
        rows:    (panels of 16 outputs, words of K, 16) uint32: for s = a · Wᵀ
        columns: (panels of 16 inputs, words of N, 16) uint32: for g_a = g_s · W
    """

    def __init__(self, outputs: int, inputs: int) -> None:
        self.n, self.k = outputs, inputs
        self.rows = _panels(outputs, inputs)
        self.columns = _panels(inputs, outputs)
        self.pairs = plane_pairs(1, 1, self.rows.shape[1])

    def pack(self, w: torch.Tensor, row_begin: int = 0) -> None:
        """Pack the signs of w, float32: rows from `row_begin` on, a multiple of BLOCK."""
        pack_weights(
            flat(w), row_begin, row_begin + len(w), self.k,
            self.rows.ravel().view(np.uint16), self.rows.shape[1],
            self.columns.ravel(), self.columns.shape[1],
        )  # fmt: skip

    def popcount_product(self, a: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """a · Sign(W)ᵀ where `a` is ±1 and 0 times `scale`: exact before the multiplication by it.

        (B, K) -> (B, N) float32.
        """
        m, kw = len(a), self.rows.shape[1]
        bits, mask = np.zeros((2, padded_rows(m), kw), np.uint32)
        nonzero = np.empty(m, np.int32)
        pack_rows(flat(a), self.k, bits.view(np.uint16), mask.view(np.uint16), nonzero)
        out = empty(m, LANES * len(self.rows))
        masked_xnor(
            bits.ravel(), mask.ravel(), nonzero, m, self.rows.ravel(), kw,
            self.pairs, np.float32(scale), _tasks_per_band(-(-m // BAND_ROWS)), flat(out),
        )  # fmt: skip
        return out[:, : self.n]

    def lut_product(self, x: torch.Tensor) -> torch.Tensor:
        """x · Sign(W)ᵀ of real x. (B, K) -> (B, N) float32."""
        return _lut_product(x, self.rows, self.n)

    def backward_product(self, g: torch.Tensor) -> torch.Tensor:
        """g · Sign(W), the product of the backward pass. (B, N) -> (B, K) float32."""
        return _lut_product(g, self.columns, self.k)


class PackedFilters:
    """W^b of a 3x3 convolution as bits, and the bits of its latest input images.

    Attributes:
        panels: (panels of 16 outputs, weight bits · words of 9 taps, 16) uint32
        images: (at least B, input bits, H + 2, W + 2, words of C) uint32, padded with zeros
        generation: incremented whenever either is packed; a backward pass compares it
    """

    def __init__(self, layer: Layer) -> None:
        self.generation = 0
        self.layer, (self.height, self.width) = layer, layer.size
        self.cells = words(layer.inputs)
        self.kw = row_words(9 * 32 * self.cells)
        self.pairs = plane_pairs(layer.input_bits, layer.weight_bits, self.kw)
        across = layer.weight_bits * self.kw
        self.panels = aligned((padded_panels(layer.outputs), across, LANES), np.uint32)
        size = layer.input_bits, self.height + 2, self.width + 2, self.cells
        self.images = np.zeros((0, *size), np.uint32)
        classes, taps = borders(self.height, self.width)
        self.classes = classes.ravel().astype(np.int32)
        self.taps = taps.reshape(-1, 9)
        y, x = np.indices((self.height, self.width)).reshape(2, -1)
        self.origins = ((y * (self.width + 2) + x) * self.cells).astype(np.int32)

    def pack(self, w: torch.Tensor) -> None:
        """Pack (N, C, 3, 3) float32, channels last in memory: signs, or of more bits 2c - n."""
        self.generation += 1
        n, c = w.shape[:2]
        codes = np.empty((n, 9), np.int32)
        bits, lanes = self.layer.weight_bits, self.panels.ravel().view(np.uint16)
        pack_filters(flat(w), n, c, self.cells, bits, lanes, self.kw, codes.ravel())
        # The 0 bits of padding act as -n_a: `base` adds what the weights there take away.
        n_a, sums = 2**self.layer.input_bits - 1, 2 * codes - (2**bits - 1) * c
        self.base = (self.layer.unit * 9 * c + n_a * (~self.taps @ sums.T)).astype(np.int32)

    def popcount_product(self, a: torch.Tensor) -> torch.Tensor:
        """The sums of integers, exact: (B, C, H, W) channels last -> (B, N, H, W) likewise."""
        self.generation += 1
        batch, n, planes = len(a), self.layer.outputs, self.layer.input_bits
        if len(self.images) < batch:
            self.images = aligned((batch, *self.images.shape[1:]), np.uint32)
        line = (self.width + 2) * self.cells
        pack_images(flat(a), batch, self.height, self.width, a.shape[1], self.cells, planes,
                    self.images.ravel().view(np.uint16))  # fmt: skip
        out = empty(batch, self.height, self.width, n)
        bands = max(1, -(-4 * thread_count() // batch))
        rows = min(BAND_ROWS, -(-len(self.origins) // bands // TILE_ROWS) * TILE_ROWS)
        conv_preactivations(
            self.images.ravel(), batch, self.images[0].size, self.images[0, 0].size, self.origins,
            line, 3 * self.cells, self.panels.ravel(), self.panels[0].size, self.kw, planes,
            self.pairs, self.base.ravel(), self.classes, flat(out), rows,
        )  # fmt: skip
        return out.permute(0, 3, 1, 2)


def _panels(rows: int, k: int) -> Words:
    """Zeros for rows of `k` bits, in panels as `lut_gemm` takes them."""
    return aligned((padded_panels(rows), row_words(k), LANES), np.uint32)


def _tasks_per_band(bands: int) -> int:
    """Tasks of each band of rows, so that every thread gets tasks."""
    return max(1, -(-4 * thread_count() // bands))


def _lut_product(x: torch.Tensor, panels: Words, n: int) -> torch.Tensor:
    m, k = x.shape
    rows, stride = -(-m // lut_gemm.TILE_ROWS) * lut_gemm.TILE_ROWS, 32 * panels.shape[1]
    if (rows, stride) != (m, k) or not x.is_contiguous():
        padded = x.new_zeros(rows, stride)
        padded[:m, :k] = x
        x = padded
    out = empty(rows, LANES * len(panels))
    tasks_per_tile = _tasks_per_band(rows // lut_gemm.TILE_ROWS)
    lut_gemm.lut_gemm(flat(x), rows, panels.ravel(), panels.shape[1], tasks_per_tile, flat(out))
    return out[:m, :n]
