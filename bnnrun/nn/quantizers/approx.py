"""ApproxSign, an estimator of activations that is not the paper's."""

from typing import Any

import torch


class ApproxSign(torch.autograd.Function):
    """q forward; g_r = g_q · (2 - 2|r|) · 1[|r| <= 1] backward.

    The factor is the derivative of a piecewise quadratic approximation of Sign: r (2 - |r|) inside
    [-1, 1]. Source: Liu et al., "Bi-Real Net" (2018), section 3.3.
    """

    @staticmethod
    def forward(r: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return q.view_as(q)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        (r,) = ctx.saved_tensors
        distance = r.abs()
        # Not a product with 0: an infinite gradient must stop too.
        return (grad_outputs[0] * (2 - 2 * distance)).masked_fill(distance > 1, 0), None


def estimate(r: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """q, whose gradient reaches r the more, the nearer r is to 0."""
    result: torch.Tensor = ApproxSign.apply(r, q)
    return result
