"""Batch normalization: vanilla in Lasagne's form, and shift-based (Alg. 3)."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bnnrun.config import NormConfig, NormName, ShiftNormConfig

Floats = NDArray[np.float64]

# For each type: integers of its size, 1 minus the mantissa of sqrt(2) rounded up, all but mantissa.
_AP2_BITS = {
    torch.float32: (torch.int32, 0x80_0000 - 0x35_04F4, ~0x7F_FFFF),
    torch.float64: (torch.int64, (1 << 52) - 0x6_A09E_667F_3BCD, ~((1 << 52) - 1)),
}


def ap2(x: torch.Tensor) -> torch.Tensor:
    """AP2(x) = sign(x) · 2^round(log2 |x|), the nearest power of two; AP2(0) = 0.

    Nearest in the logarithm: the exponent changes at sqrt(2) · 2^n. It is a rounding of the bits
    of a floating-point number: adding `1 - mantissa of sqrt(2)` carries into the exponent exactly
    where |x| >= sqrt(2) · 2^n, and the mantissa is then cleared. Subnormal numbers, below 2^-126,
    become 0 or 2^-126.
    """
    integer_type, carry, cleared = _AP2_BITS[x.dtype]
    return ((x.contiguous().view(integer_type) + carry) & cleared).view(x.dtype)


def _channels_first(t: torch.Tensor, dim: int) -> torch.Tensor:
    """(N,) -> (1, N, 1, ...), to stand beside a tensor of `dim` dimensions."""
    return t.view(1, -1, *[1] * (dim - 2))


class BatchNorm(nn.Module):
    """y = (s - mean) · inv_std · gamma + beta, inv_std = 1 / sqrt(var + eps), for each channel.

    Unlike torch.nn.BatchNorm, which averages the unbiased variance, the running value is the
    average of the *inverse standard deviation* of the batches (biased variance), from 1; that of
    the mean is from 0. `momentum` weighs the newest batch.

    Shapes:
        s: (B, N) or (B, N, H, W); statistics over all axes but the second
    """

    mean: torch.Tensor
    inv_std: torch.Tensor

    def __init__(self, channels: int, eps: float, momentum: float) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("inv_std", torch.ones(channels))

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        """Normalize by the batch's own statistics and take them into the running ones."""
        y, mean, inv_std = self.normalize(s)
        self.track(mean.detach(), inv_std.detach())
        return y

    def track(self, mean: torch.Tensor, inv_std: torch.Tensor) -> None:
        """Take a batch's statistics into the running ones."""
        self.mean.lerp_(mean, self.momentum)
        self.inv_std.lerp_(inv_std, self.momentum)

    def normalize(self, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(y, the batch's mean, its inverse deviation)."""
        return torch.native_batch_norm(s, self.gamma, self.beta, None, None, True, 0.0, self.eps)

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What evaluation takes for gamma and for the inverse deviation."""
        return self.gamma, self.inv_std

    def affine(self) -> tuple[Floats, Floats, Floats]:
        """(mean, scale, shift) of evaluation, float64 (N,): y = (s - mean) · scale + shift."""
        return tuple(t.detach().cpu().numpy() for t in self._affine())  # type: ignore[return-value]

    def _affine(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        gamma, inv_std = self.factors()
        return self.mean.double(), gamma.double() * inv_std.double(), self.beta.double()

    def evaluate(self, s: torch.Tensor) -> torch.Tensor:
        """Normalize by the running statistics, in float64: the arithmetic of every evaluation.

        Each operation rounds once, in this order, so that a packed network can repeat it.
        """
        mean, scale, shift = (_channels_first(t, s.dim()) for t in self._affine())
        return (s.double() - mean) * scale + shift


class ShiftBatchNorm(BatchNorm):
    """Shift-based batch normalization (Alg. 3): every product is one by a power of two.

        mu = mean(s);  C = s - mu;  sigma² = mean(C · AP2(C))
        y = C · AP2(1 / sqrt(sigma² + eps)) · AP2(gamma) + beta

    beta is missing from the paper's box and present in the authors' code. The running inverse
    deviation is averaged unquantized, and quantized when used.
    """

    def normalize(self, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        result: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _ShiftNormalize.apply(
            s, self.gamma, self.beta, self.eps
        )
        return result

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return ap2(self.gamma), ap2(self.inv_std)


class _ShiftNormalize(torch.autograd.Function):
    """Forward as above; backward by the authors' explicit formula.

    With Ct = AP2(C), inv = AP2(1/sigma), g the gradient of y and means over the batch:

        g_s     = AP2(gamma) · inv · (g - mean(g) - Ct · inv² · mean(Ct · g))
        g_gamma = sum(AP2(C · inv) · g);  g_beta = sum(g)

    AP2 passes the gradient of gamma as if it were the identity.
    """

    @staticmethod
    def forward(
        s: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        axes = [0, *range(2, s.dim())]
        mean = s.mean(axes)
        c = s - _channels_first(mean, s.dim())
        inv_std = ((c * ap2(c)).mean(axes) + eps).rsqrt()
        scale = ap2(inv_std) * ap2(gamma)
        y = c * _channels_first(scale, s.dim()) + _channels_first(beta, s.dim())
        return y, mean, inv_std

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        s, gamma, _, _ = inputs
        _, mean, inv_std = output
        ctx.mark_non_differentiable(mean, inv_std)
        ctx.save_for_backward(s, mean, ap2(inv_std), ap2(gamma))

    @staticmethod
    def backward(
        ctx: Any, *grad_outputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        g = grad_outputs[0]
        s, mean, inv, gamma = ctx.saved_tensors
        axes = [0, *range(2, s.dim())]
        c = s - _channels_first(mean, s.dim())
        ct = ap2(c)
        by_variance = _channels_first(inv.square() * (ct * g).mean(axes), s.dim())
        g_s = g - _channels_first(g.mean(axes), s.dim()) - ct * by_variance
        g_gamma = (ap2(c * _channels_first(inv, s.dim())) * g).sum(axes)
        return g_s * _channels_first(gamma * inv, s.dim()), g_gamma, g.sum(axes), None


def make_norm(channels: int, config: NormConfig, last: bool) -> BatchNorm:
    """The normalization of a layer; the output layer's may be another, as in the Torch7 code."""
    if isinstance(config, ShiftNormConfig):
        if not last:
            return ShiftBatchNorm(channels, config.eps, config.momentum)
        norm_type = ShiftBatchNorm if config.output is NormName.shift else BatchNorm
        return norm_type(channels, config.eps, config.output_momentum)
    return BatchNorm(channels, config.eps, config.momentum)
