"""Batch normalization as the authors' Theano code has it (Lasagne's form)."""

import torch
from torch import nn

from bnnrun.config import NormConfig


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

    def __init__(self, channels: int, config: NormConfig) -> None:
        super().__init__()
        self.eps, self.momentum = config.eps, config.momentum
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("inv_std", torch.ones(channels))

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        """Normalize by the batch's own statistics and take them into the running ones."""
        y, mean, inv_std = torch.native_batch_norm(
            s, self.gamma, self.beta, None, None, True, 0.0, self.eps
        )
        self.mean.lerp_(mean.detach(), self.momentum)
        self.inv_std.lerp_(inv_std.detach(), self.momentum)
        return y

    def evaluate(self, s: torch.Tensor) -> torch.Tensor:
        """Normalize by the running statistics, in float64: the arithmetic of every evaluation.

        Each operation rounds once, in this order, so that a packed network can repeat it.
        """
        shape = (1, -1) + (1,) * (s.dim() - 2)
        mean, scale, beta = (
            t.view(shape)
            for t in (
                self.mean.double(),
                self.gamma.double() * self.inv_std.double(),
                self.beta.double(),
            )
        )
        return (s.double() - mean) * scale + beta
