"""3x3 convolutions, and their gradients, by Winograd's minimal filtering, on the processor.

Tiles of 4x4 outputs cost 36 products instead of 144 (F(4x4, 3x3), points 0, 1, -1, 2, -2 and
infinity). Each array is transformed tile by tile, channels side by side; then there is a matrix
product for each of the 36 places. In float32 the results differ from a direct convolution by
about 1e-6 of their norm.

    s   = output(sum over C of tile(a) · weight(w))
    g_a = output(sum over N of tile(g_s) · weight(w, turned))
    g_W = taps, turned back, of (sum over tiles of tile(g_s) · filter(a))

The last takes each 4x4 pixels of `a` as a filter over g_s (F(3x3, 4x4), the same points), so that
one transform of g_s serves both; its taps come out in the opposite order.

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks" (2015).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bnnrun.engine.cpu.kernels.batched_gemm import HAS_BATCHED_GEMM, batched_gemm
from bnnrun.engine.cpu.kernels.tiles import (
    PLACES,
    transform_filters,
    transform_outputs,
    transform_packed_filters,
    transform_packed_weights,
    transform_tiles,
    transform_weight_gradients,
    transform_weights,
)
from bnnrun.engine.cpu.packed import PackedFilters
from bnnrun.engine.memory import empty
from bnnrun.gemm.bits import LANES

Floats = NDArray[np.float32]

TILE_SIDE = 4
TILE_BYTES = 2**24  # of an array's transformed tiles at a time: they fit a third-level cache


def fits(size: tuple[int, ...], channels: int, outputs: int) -> bool:
    """Whether the image size is a multiple of the tile, and the channels of the lanes."""
    return not (size[0] % TILE_SIDE or size[1] % TILE_SIDE or channels % LANES or outputs % LANES)


class Workspace:
    """Buffers that are reused: allocating them costs as much as the kernel that fills them."""

    def __init__(self) -> None:
        self.buffers: dict[str, torch.Tensor] = {}

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """The buffer `name` in this shape, uninitialized."""
        size = int(np.prod(shape))
        if name not in self.buffers or self.buffers[name].numel() < size:
            self.buffers[name] = empty(size)
        return self.buffers[name][:size].view(shape)


class Operands(Protocol):
    """The operands of a convolution, transformed for its gradients."""

    def transform_weights(self, out: torch.Tensor) -> None:
        """Write the transformed weights, rotated by 180 degrees, to (36, N, C)."""

    def transform_filters(self, part: slice, out: torch.Tensor) -> None:
        """Write the tiles of the images `part`, transformed as filters, to (36, tiles, C)."""


@dataclass(frozen=True)
class Packed:
    """Operands of the latest `filters.popcount_product(a)`: both ±1, read from their bits."""

    filters: PackedFilters

    def transform_weights(self, out: torch.Tensor) -> None:
        panels, layer = self.filters.panels, self.filters.layer
        transform_packed_weights(
            panels.ravel().view(np.uint16), panels.shape[1], layer.outputs, layer.inputs,
            self.filters.cells, _numbers(out),
        )  # fmt: skip

    def transform_filters(self, part: slice, out: torch.Tensor) -> None:
        images, (height, width) = self.filters.images[part], self.filters.layer.size
        transform_packed_filters(
            images.ravel().view(np.uint16), len(images), height, width, self.filters.layer.inputs,
            self.filters.cells, _numbers(out),
        )  # fmt: skip


@dataclass(frozen=True)
class Real:
    """Real operands: a (B, C, H, W), w (N, C, 3, 3), float32, channels last in memory."""

    a: torch.Tensor
    w: torch.Tensor

    def transform_weights(self, out: torch.Tensor, *, turned: bool = True) -> None:
        outputs, channels = self.w.shape[:2]
        transform_weights(_flat(self.w), outputs, channels, turned, _numbers(out))

    def transform_filters(self, part: slice, out: torch.Tensor) -> None:
        images, (_, channels, height, width) = self.a[part], self.a.shape
        transform_filters(_flat(images), len(images), height, width, channels, _numbers(out))


def _parts(batch: int, height: int, width: int, channels: int) -> list[slice]:
    """Slices of the batch whose transformed tiles fit TILE_BYTES."""
    tiles = (height // TILE_SIDE) * (width // TILE_SIDE)
    step = max(1, TILE_BYTES // (4 * PLACES * tiles * channels))
    return [slice(start, min(batch, start + step)) for start in range(0, batch, step)]


def convolve(operands: Real, workspace: Workspace) -> torch.Tensor:
    """s = conv(a, w) with padding 1, (B, N, H, W) channels last; `fits` must hold."""
    (batch, channels, height, width), outputs = operands.a.shape, len(operands.w)
    u = workspace.take("weights", PLACES, outputs, channels)
    operands.transform_weights(u, turned=False)
    s = empty(batch, outputs, height, width, channels_last=True)
    for part in _parts(batch, height, width, max(outputs, channels)):
        a = operands.a[part]
        count = len(a) * (height // TILE_SIDE) * (width // TILE_SIDE)
        v = workspace.take("inputs", PLACES, count, channels)
        m = workspace.take("outputs", PLACES, count, outputs)
        transform_tiles(_flat(a), len(a), height, width, channels, _numbers(v))
        torch.bmm(v, u.transpose(1, 2), out=m)
        transform_outputs(_numbers(m), len(a), height, width, outputs, _flat(s[part]))
    return s


def gradients(
    g_s: torch.Tensor,
    operands: Operands,
    g_w: torch.Tensor,
    workspace: Workspace,
    *,
    of_input: bool,
) -> torch.Tensor | None:
    """g_a, or None, of s = conv(a, w) with padding 1; g_W is written to `g_w`.

    Shapes, float32, channels last in memory; `fits` must hold:
        g_s: (B, N, H, W); g_a: (B, C, H, W); g_w: (N, C, 3, 3)
    """
    (batch, outputs, height, width), channels = g_s.shape, g_w.shape[1]
    parts = _parts(batch, height, width, max(outputs, channels))
    # If one part is the whole batch, the weights' buffer is free before the taps are summed.
    total = workspace.take("weights" if len(parts) == 1 else "taps", PLACES, outputs, channels)
    g_a = None
    if of_input:
        g_a = empty(batch, channels, height, width, channels_last=True)
        u = workspace.take("weights", PLACES, outputs, channels)
        operands.transform_weights(u)
    for part in parts:
        g = g_s[part]
        count = len(g) * (height // TILE_SIDE) * (width // TILE_SIDE)
        v = workspace.take("outputs", PLACES, count, outputs)
        m = workspace.take("inputs", PLACES, count, channels)
        transform_tiles(_flat(g), len(g), height, width, outputs, _numbers(v))
        if g_a is not None:
            _multiply(v, u, m)
            transform_outputs(_numbers(m), len(g), height, width, channels, _flat(g_a[part]))
        operands.transform_filters(part, m)
        _multiply(v, m, total, is_transposed=True, adds=part.start > 0)
    transform_weight_gradients(_numbers(total), outputs, channels, _flat(g_w))
    return g_a


def _multiply(
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor,
    *,
    is_transposed: bool = False,
    adds: bool = False,
) -> None:
    """out = a · b of each place, of `a` transposed where that is said; or out += a · b.

    Shapes: a (36, m, depth), or (36, depth, m); b (36, depth, n); out (36, m, n)
    """
    if not HAS_BATCHED_GEMM:
        matrices = a.transpose(1, 2) if is_transposed else a
        torch.baddbmm(out, matrices, b, beta=int(adds), out=out)
        return
    (m, n), depth = out.shape[1:], b.shape[1]
    steps = (1, m) if is_transposed else (depth, 1)
    batched_gemm(_numbers(a), *steps, _numbers(b), m, n, depth, _numbers(out), adds)


def _numbers(t: torch.Tensor) -> Floats:
    """A buffer of the workspace as a flat array."""
    numbers: Floats = t.view(-1).numpy()
    return numbers


def _flat(t: torch.Tensor) -> Floats:
    """A channels-last (n, channels, height, width) tensor as a flat array."""
    numbers: Floats = t.detach().permute(0, 2, 3, 1).view(-1).numpy()
    return numbers
