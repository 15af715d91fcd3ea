"""The paper's straight-through estimator of activations (Eq. 4-5)."""

from typing import Any

import torch


class StraightThrough(torch.autograd.Function):
    """q forward; g_r = g_q · 1[|r| <= 1] backward (Eq. 4).

    The indicator is the derivative of Htanh(r) = clip(r, -1, 1) (Eq. 5), inclusive at ±1. A value
    beyond is saturated. The same for deterministic and sampled q.
    """

    @staticmethod
    def forward(r: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return q.view_as(q)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(inputs[0].abs() > 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        (saturated,) = ctx.saved_tensors
        # Not a product with 0: an infinite gradient must stop too.
        return grad_outputs[0].masked_fill(saturated, 0), None


def estimate(r: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """q, whose gradient reaches r where r is not saturated."""
    result: torch.Tensor = StraightThrough.apply(r, q)
    return result
