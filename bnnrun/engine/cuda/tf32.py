"""Products of binary layers in training on a GPU: TF32 operands.

TF32 keeps ten bits of an operand and sums in float32: ±1, and 0, go through it unchanged, so the
sums of hidden layers stay exact; gradients are rounded, less than bf16 would round them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F


class Tf32Product(torch.autograd.Function):
    """s = a · W^bᵀ, or the convolution, from W^b (N, K) or (N, C, 3, 3); g_W = g_{W^b}.

    Where `a` is ±1 and 0 times `scale`; without a scale it is real numbers, which TF32 would round,
    and s is float32's.
    """

    @staticmethod
    def forward(
        a: torch.Tensor, weight: torch.Tensor, signs: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        if scale is None:
            return _product(a, signs)
        with _tf32():
            s = _product(a if scale == 1 else (a / scale).round_(), signs)
        if signs.dim() == 4:
            s.round_()  # cuDNN may transform its operands, which leaves sums off by rounding
        return s if scale == 1 else s.mul_(scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        a, _, signs, _ = inputs
        ctx.save_for_backward(a, signs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (a, signs), g = ctx.saved_tensors, grad_outputs[0]
        of_a = ctx.needs_input_grad[0]
        with _tf32():
            if signs.dim() == 2:
                return g @ signs if of_a else None, g.t() @ a, None, None
            g_a, g_w, _ = torch.ops.aten.convolution_backward(
                g, a, signs, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [of_a, True, False]
            )
        return g_a, g_w, None, None


def _product(a: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    return F.conv2d(a, signs, padding=1) if signs.dim() == 4 else F.linear(a, signs)


@contextmanager
def _tf32() -> Iterator[None]:
    """Float32 products by TF32, here alone."""
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept
