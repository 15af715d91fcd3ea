"""Binarization: Sign and its straight-through estimators (paper §1.1 and §1.3, Eq. 1-5)."""

from typing import Any

import torch


def sign(r: torch.Tensor) -> torch.Tensor:
    """Sign(r): +1 where r >= 0, else -1 (Eq. 1).

    Zero and minus zero are +1. `torch.sign` gives 0 there, a third value that no bit can hold.
    """
    return torch.where(r >= 0, 1.0, -1.0).to(r.dtype)


class SignActivation(torch.autograd.Function):
    """q = Sign(r) forward (Eq. 1); g_r = g_q * 1[|r| <= 1] backward (Eq. 4).

    The gate is the derivative of Htanh(r) = clip(r, -1, 1), inclusive at ±1 (Eq. 5).
    """

    @staticmethod
    def forward(r: torch.Tensor) -> torch.Tensor:
        return sign(r)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        (r,) = inputs
        ctx.save_for_backward(r.abs() <= 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> torch.Tensor:
        (open_,) = ctx.saved_tensors
        g_q = grad_outputs[0]
        return g_q.masked_fill(~open_, 0)


class SignWeight(torch.autograd.Function):
    """W^b = Sign(W) forward; g_W = g_{W^b} backward, unchanged (Alg. 1).

    No gate: the clip keeps |W| <= 1, where an inclusive gate is open. An exclusive one would
    freeze each weight that the clip has put at exactly ±1.
    """

    @staticmethod
    def forward(w: torch.Tensor) -> torch.Tensor:
        return sign(w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> torch.Tensor:
        return grad_outputs[0]
