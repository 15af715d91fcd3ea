"""The fused update of a fully connected layer: g_W, Adam, c, clip, Sign and packing in one pass.

A minibatch is small compared to the weights, so g_W is computed where it is used and never written
to memory. If `a` is ±1 or 0, g_W = g_sᵀ · a is a product of bytes: g_s is quantized to 16-bit
integers, two bytes each, with a scale for each output. That rounds g_s to 1 / 65,024 of the largest
gradient of its output in the minibatch; the integer accumulators are exact. If `a` is real, as in
the first layer, the product is computed in float32.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bnnrun.engine.cpu.kernels.update import (
    LARGEST_INT16,
    TILE_ROWS,
    adam_by_bytes,
    adam_by_reals,
    pack_byte_panels,
    quantize,
)
from bnnrun.engine.cpu.packed import PackedWeights
from bnnrun.engine.memory import flat
from bnnrun.gemm.bits import LANES, Words, aligned
from bnnrun.gemm.instructions import HAS_BYTE_PRODUCT, HAS_TERNARY

Floats = NDArray[np.float32]

HAS_BYTES, HAS_REALS = HAS_BYTE_PRODUCT, HAS_TERNARY  # the second: 16 floats a register
MAX_BATCH = 2**31 // LARGEST_INT16  # the largest minibatch whose sums always fit 32 bits


@dataclass(frozen=True)
class ByteFactors:
    """The gradient of a fully connected layer as a product of bytes: g_W = scale · (q · (a + 1)ᵀ
    - sum of q).

    Attributes:
        q:      (N', 2, words of B) uint32: high bytes, low bytes, both signed; N' is N rounded up
                to a multiple of TILE_ROWS
        scales: (N',) float32
        sums:   (N',) int32, sums of the rows of q
        panels: (panels of 16 inputs, words of B, 16) uint32: bytes 0, 1, 2 for -1, 0, +1
    """

    q: Words
    scales: Floats
    sums: NDArray[np.int32]
    panels: Words

    @classmethod
    def of(cls, g_s: torch.Tensor, a: torch.Tensor, scale: float) -> "ByteFactors":
        """Of g_s (B, N) and `a` (B, K), ±1 and 0 times `scale`; float32; B <= MAX_BATCH."""
        (batch, n), k = g_s.shape, a.shape[1]
        rows, kw = -(-n // TILE_ROWS) * TILE_ROWS, -(-batch // 4)
        q = aligned((rows, 2, kw), np.uint32)
        scales, sums = np.zeros(rows, np.float32), np.zeros(rows, np.int32)
        quantize(g_s.contiguous().numpy(), q, np.float32(scale), scales, sums)
        panels = aligned((-(-k // (2 * LANES)) * 2, kw, LANES), np.uint32)
        pack_byte_panels(flat(a.contiguous()), k, panels.ravel())
        return cls(q, scales, sums, panels)

    def update(
        self,
        streams: tuple[Floats, Floats, Floats],
        constants: Floats,
        packed: PackedWeights,
        *,
        clip: bool,
    ) -> None:
        """Update w, m, v, (N, K) each, as `adam_kernel` does; write the new signs to `packed`."""
        adam_by_bytes(
            *streams, self.q.ravel(), self.scales, self.sums, self.panels.ravel(), self.q.shape[2],
            constants, clip, packed.rows.ravel().view(np.uint16), packed.rows.shape[1],
            packed.columns.ravel(), packed.columns.shape[1],
        )  # fmt: skip


@dataclass(frozen=True)
class RealFactors:
    """The gradient of a fully connected layer in float32: g_W = g_sᵀ · a.

    Attributes:
        g_s: (groups of TILE_ROWS outputs, B, TILE_ROWS) float32
        a:   (panels of 32 inputs, B, 32) float32
    """

    g_s: Floats
    a: Floats

    @classmethod
    def of(cls, g_s: torch.Tensor, a: torch.Tensor) -> "RealFactors":
        """Lay out g_s (B, N) and `a` (B, K), float32."""
        return cls(_grouped(g_s, TILE_ROWS), _grouped(a, 2 * LANES))

    def update(
        self,
        streams: tuple[Floats, Floats, Floats],
        constants: Floats,
        packed: PackedWeights,
        *,
        clip: bool,
    ) -> None:
        """As `ByteFactors.update`."""
        adam_by_reals(
            *streams, self.g_s.ravel(), self.a.ravel(), self.a.shape[1], constants, clip,
            packed.rows.ravel().view(np.uint16), packed.rows.shape[1], packed.columns.ravel(),
            packed.columns.shape[1],
        )  # fmt: skip


def _grouped(t: torch.Tensor, size: int) -> Floats:
    """(B, columns) -> (groups of `size` columns, B, size), the last padded with 0."""
    padded = F.pad(t, (0, -t.shape[1] % size))
    groups: Floats = padded.view(len(t), -1, size).transpose(0, 1).contiguous().numpy()
    return groups
