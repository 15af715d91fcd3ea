"""Inverted dropout, seeded and in one pass each way."""

from typing import Any

import torch
import torch.nn.functional as F

from bnnrun.nn.kernels.passes import dropout_pass, masked_pass
from bnnrun.nn.memory import empty_like, flat


class Dropout(torch.autograd.Function):
    """a / (1 - share) where kept, else 0, forward; the same mask and scale backward.

    The generator is seeded by one number drawn from torch's own, which a checkpoint holds.
    """

    @staticmethod
    def forward(a: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
        out, mask = empty_like(a), empty_like(a, torch.bool)
        seed = int(torch.randint(2**62, ()).item())
        dropout_pass(flat(a), flat(out), mask.view(-1).numpy(), share, seed)
        return out, mask

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.scale = 1 / (1 - inputs[1])
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        (mask,) = ctx.saved_tensors
        g = grad_outputs[0].contiguous()
        out = empty_like(g)
        masked_pass(flat(g), mask.view(-1).numpy(), ctx.scale, flat(out))
        return out, None


def dropout(a: torch.Tensor, share: float) -> torch.Tensor:
    """Inverted dropout in training."""
    if not a.is_cpu:
        return F.dropout(a, share)
    kept: torch.Tensor = Dropout.apply(a.contiguous(), share)[0]
    return kept
