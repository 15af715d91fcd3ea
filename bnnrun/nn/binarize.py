"""Binarization and its straight-through estimators (paper §1.1 and §1.3, Eq. 1-5)."""

from typing import Any

import torch

from bnnrun.nn.kernels.passes import sign_pass, stochastic_pass
from bnnrun.nn.memory import flat, is_dense


def sign(r: torch.Tensor) -> torch.Tensor:
    """Sign(r): +1 where r >= 0, else -1 (Eq. 1).

    Zero and minus zero are +1. `torch.sign` gives 0 there, a third value that no bit can hold.
    """
    return sign_into(r, torch.empty_like(r))


def sign_into(r: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Sign(r) written to `out`, which is of the same shape, strides and type."""
    if is_dense(r) and r.stride() == out.stride():
        sign_pass(flat(r), flat(out))
        return out
    return torch.ge(r, 0, out=out).mul_(2).sub_(1)


def stochastic_sign(r: torch.Tensor) -> torch.Tensor:
    """+1 with probability clip((r + 1) / 2, 0, 1), the hard sigmoid of r, else -1 (Eq. 2-3)."""
    if not is_dense(r):
        return sign((r + 1) / 2 - torch.rand_like(r))
    # Seeded by torch's own generator, which a checkpoint holds.
    out, seed = torch.empty_like(r), int(torch.randint(2**62, ()).item())
    stochastic_pass(flat(r), flat(out), seed)
    return out


class SignActivation(torch.autograd.Function):
    """q = Sign(r) forward (Eq. 1), or drawn (Eq. 2); g_r = g_q * 1[|r| <= 1] backward (Eq. 4).

    The gate is the derivative of Htanh(r) = clip(r, -1, 1), inclusive at ±1 (Eq. 5), and the same
    for both forward forms.
    """

    @staticmethod
    def forward(r: torch.Tensor, stochastic: bool, gated: bool) -> torch.Tensor:
        return stochastic_sign(r) if stochastic else sign(r)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[torch.Tensor, bool, bool], output: torch.Tensor
    ) -> None:
        r, _, gated = inputs
        ctx.gated = gated
        if gated:
            ctx.save_for_backward(r.abs() > 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        g_q = grad_outputs[0]
        if not ctx.gated:
            return g_q, None, None
        (closed,) = ctx.saved_tensors
        return g_q.masked_fill(closed, 0), None, None
