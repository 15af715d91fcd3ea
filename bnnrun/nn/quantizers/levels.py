"""Quantization to k bits: 2^k levels from -1 to 1, evenly apart. Sign is k = 1.

    n = 2^k - 1;  c = number of j in 1 .. n with r >= (2j - 2^k) / n;  q = 2c/n - 1
    dq/dr = 1[|r| <= 1], the estimator of Sign (Eq. 4)

The rule is this project's: that of the paper's Theano code, 2 · round(hard_sigmoid(r)) - 1, with
more levels. The paper's successor, Hubara et al., "Quantized Neural Networks" (2016), gives no rule
in all detail, and others mean other levels by as many bits (docs/more_bits.md).

c is found by comparing, because a formula with floor rounds otherwise: at k = 1, (r + 1) / 2 of
-1e-9 is 1/2, which would make a +1 of it. Levels are kept as the integers 2c - n = n q: a third
is no floating-point number, and a sum of thirds would depend on its order.
"""

from typing import Any

import torch

from bnnrun.nn.quantizers.sign import sign


def thresholds(bits: int, dtype: torch.dtype) -> torch.Tensor:
    """(2j - 2^k) / n for j = 1 .. n, each rounded once: (n,) ascending; one of them is 0."""
    n = 2**bits - 1
    result: torch.Tensor = (2 * torch.arange(1, n + 1, dtype=dtype) - 2**bits) / n
    return result


def codes(r: torch.Tensor, bits: int) -> torch.Tensor:
    """c, in 0 .. n, as int64. Shapes: r and what is returned alike; r float"""
    return torch.bucketize(r.contiguous(), thresholds(bits, r.dtype).to(r.device), right=True)


def levels(r: torch.Tensor, bits: int) -> torch.Tensor:
    """2c - n, the integers n q, in the type of `r`; ±1 where bits = 1."""
    if bits == 1:
        return sign(r)
    return codes(r, bits).mul_(2).sub_(2**bits - 1).to(r.dtype)


class Unscaled(torch.autograd.Function):
    """n q forward, given as it is; g_q = n · g_{nq} backward."""

    @staticmethod
    def forward(nq: torch.Tensor, n: int) -> torch.Tensor:
        return nq.view_as(nq)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.n = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad_outputs[0] * ctx.n, None
