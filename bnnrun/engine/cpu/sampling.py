"""Dropout, Sign or levels, and sampled signs on the processor, each in one kernel."""

from typing import Any

import torch

from bnnrun.engine.cpu.kernels.elementwise import (
    dropout_kernel,
    level_kernel,
    mask_kernel,
    sample_kernel,
)
from bnnrun.engine.memory import empty_like, flat, has_no_gaps
from bnnrun.nn.quantizers.levels import thresholds
from bnnrun.nn.sampling import dropped_below


class Dropout(torch.autograd.Function):
    """(out, mask): a / (1 - share) where mask, else 0, forward; the same mask backward.

    Shapes: a (B, N) or (B, C, H, W), without gaps, float32; key () int64 (sampling.layer_key)
    """

    @staticmethod
    def forward(
        a: torch.Tensor, share: float, key: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out, mask = empty_like(a), empty_like(a, torch.bool)
        dropout_kernel(
            flat(a), flat(out), flat(mask), *_order(a), dropped_below(share), 1 / (1 - share),
            key.item(),
        )  # fmt: skip
        return out, mask

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.scale = 1 / (1 - inputs[1])
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        g = _like(grad_outputs[0], mask)
        out = empty_like(g)
        mask_kernel(flat(g), flat(mask), ctx.scale, flat(out))
        return out, None, None


def dropout(a: torch.Tensor, share: float, key: torch.Tensor) -> torch.Tensor:
    """Inverted dropout in training."""
    out: torch.Tensor = Dropout.apply(a if has_no_gaps(a) else a.contiguous(), share, key)[0]
    return out


def levels_into(r: torch.Tensor, bits: int, out: torch.Tensor) -> torch.Tensor:
    """Sign(r) (Eq. 1), or of more bits 2c - n, written to `out`; nn/quantizers/levels.py.

    Shapes: without gaps, alike in strides, float32
    """
    level_kernel(flat(r), thresholds(bits, torch.float32).numpy(), flat(out))
    return out


def sample_into(r: torch.Tensor, key: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Sampled signs of r written to `out` (Eq. 2-3), by the bits of `key`. Shapes as above."""
    sample_kernel(flat(r), flat(out), *_order(r), key.item())
    return out


def _order(t: torch.Tensor) -> tuple[int, int]:
    """(channels, pixels) of `t` in memory order: pixels is 1 unless it is channels last."""
    if t.is_contiguous():
        return t[0].numel(), 1
    return t.shape[1], t[0, 0].numel()


def _like(g: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`g` in the memory order of a tensor without gaps."""
    if g.stride() == other.stride():
        return g
    return torch.empty_like(other, dtype=g.dtype).copy_(g)
