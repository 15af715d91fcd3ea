"""Gradients of a 3x3 convolution by Winograd's minimal filtering, on the processor.

Tiles of 4x4 outputs cost 36 products instead of 144 (F(4x4, 3x3), points 0, 1, -1, 2, -2 and
infinity). Each array is transformed tile by tile, channels side by side; what remains is a product
of matrices for each of the 36 places, which is torch's. In float32 the results differ from the
direct sums by some 1e-6 of their norm.

    g_a = output(sum over N of tile(g_s) · weight(w, turned))
    g_W = taps, turned back, of (sum over tiles of tile(g_s) · filter(a))

The second takes each 4x4 pixels of `a` as a filter over g_s (F(3x3, 4x4), the same points), so that
one transform of g_s serves both; its taps come out in the opposite order.

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks" (2015).
"""

import numpy as np
import torch
from numpy.typing import NDArray

from bnnrun.gemm.bits import LANES
from bnnrun.nn.bits import PackedFilters
from bnnrun.nn.kernels.tiles import (
    PLACES,
    transform_filters,
    transform_outputs,
    transform_tiles,
    transform_weight_gradients,
    transform_weights,
)
from bnnrun.nn.memory import empty

Floats = NDArray[np.float32]

TILE = 4
BYTES = 2**24  # of an array's transformed tiles at once: what a third-level cache holds


def fits(size: tuple[int, ...], channels: int, outputs: int) -> bool:
    """Whether the tiles cover the images, and the lanes the channels."""
    return not (size[0] % TILE or size[1] % TILE or channels % LANES or outputs % LANES)


class Workspace:
    """Memory that is written to again: new memory costs as much as the pass that fills it."""

    def __init__(self) -> None:
        self.held: dict[str, torch.Tensor] = {}

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """Memory of that name and shape, whatever it held."""
        size = int(np.prod(shape))
        if name not in self.held or self.held[name].numel() < size:
            self.held[name] = empty(size)
        return self.held[name][:size].view(shape)


def gradients(
    g_s: torch.Tensor,
    filters: PackedFilters,
    g_w: torch.Tensor,
    room: Workspace,
    *,
    of_input: bool,
) -> torch.Tensor | None:
    """g_a, or None, of the last `filters.sums(a)`; g_W is written to `g_w`.

    Both ±1 are read from the bits that the sums were counted from.

    Shapes, float32, channels last in memory; `fits` must hold:
        g_s: (B, N, H, W); g_a: (B, C, H, W); g_w: (N, C, 3, 3)
    """
    batch, outputs, height, width = g_s.shape
    channels, cells = filters.layer.inputs, filters.cells
    tiles = (height // TILE) * (width // TILE)
    step = max(1, min(batch, BYTES // (4 * PLACES * tiles * max(outputs, channels))))
    # Where one part is the whole batch, the weights are done with before the taps are summed.
    total = room.take("weights" if step == batch else "taps", PLACES, outputs, channels)
    g_a = None
    if of_input:
        shape = batch, channels, height, width
        g_a = empty(*shape, channels_last=True)
        u = room.take("weights", PLACES, outputs, channels)
        panels = filters.panels
        transform_weights(panels.ravel().view(np.uint16), panels.shape[1], outputs, channels,
                          cells, u.view(-1).numpy())  # fmt: skip
    for start in range(0, batch, step):
        g, some = g_s[start : start + step], filters.images[start : start + step]
        count = len(g) * tiles
        size = len(g), height, width
        v, m = (
            room.take("outputs", PLACES, count, outputs),
            room.take("inputs", PLACES, count, channels),
        )
        transform_tiles(_flat(g), *size, outputs, v.view(-1).numpy())
        if g_a is not None:
            torch.bmm(v, u, out=m)
            transform_outputs(m.view(-1).numpy(), *size, channels, _flat(g_a[start : start + step]))
        pixels = some.ravel().view(np.uint16)
        transform_filters(pixels, *size, channels, cells, m.view(-1).numpy())
        if start == 0:
            torch.bmm(v.transpose(1, 2), m, out=total)
        else:
            total.baddbmm_(v.transpose(1, 2), m)
    transform_weight_gradients(total.view(-1).numpy(), outputs, channels, _flat(g_w))
    return g_a


def _flat(t: torch.Tensor) -> Floats:
    """The memory of a (n, channels, height, width) tensor that lies channels last."""
    found: Floats = t.detach().permute(0, 2, 3, 1).view(-1).numpy()
    return found
