"""The competitor of `train_step`: the same network as one would write it in plain PyTorch.

Eager float32, torch's own batch norm and Adam, signs made anew at each use. Nothing here is used
by training.
"""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F

from bnnrun.config import AdamConfig
from bnnrun.nn.losses import squared_hinge
from bnnrun.nn.models import Network


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, r: torch.Tensor, gated: bool) -> torch.Tensor:
        ctx.save_for_backward(r)
        ctx.gated = gated
        return torch.where(r >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        (r,) = ctx.saved_tensors
        return (g * (r.abs() <= 1) if ctx.gated else g), None


class EagerStep:
    """A copy of `network` that is trained by plain PyTorch operations."""

    def __init__(
        self, network: Network, optimizer: torch.optim.Optimizer, config: AdamConfig
    ) -> None:
        self.network = copy.deepcopy(network)
        self.eps = network.blocks[0].norm.eps
        groups, self.clipped = [], []
        for group, block in zip(optimizer.param_groups[::2], self.network.blocks, strict=True):
            weight, norm = block.product.weight, block.norm
            groups.append({"params": [weight], "lr": config.lr * group["scale"]})
            groups.append({"params": [norm.gamma, norm.beta], "lr": config.lr})
            if group["clip"]:
                self.clipped.append(weight)
        # torch adds eps to the corrected root; so divided, the first steps are the same.
        eps = config.eps / math.sqrt(1 - config.beta2)
        self.adam = torch.optim.Adam(
            groups, betas=(config.beta1, config.beta2), eps=eps, foreach=False, fused=False
        )

    def gradients(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss; its gradients are left in the parameters."""
        self.adam.zero_grad(set_to_none=True)
        a = (2 * pixels.float() / self.network.levels - 1).flatten(1)
        for block in self.network.blocks:
            if block.layer.dropout > 0:
                a = F.dropout(a, block.layer.dropout)
            weight = block.product.weight
            s = F.linear(a, _Sign.apply(weight, False) if block.product.binary else weight)
            y = F.batch_norm(s, None, None, block.norm.gamma, block.norm.beta, True, 0.0, self.eps)
            if block.layer.last:
                a = y
            else:
                a = _Sign.apply(y, True) if block.binary_activations else F.relu(y)
        loss = squared_hinge(a, labels)
        loss.backward()
        return loss.detach()

    def update(self) -> None:
        """Adam's step, then the clip."""
        self.adam.step()
        with torch.no_grad():
            for weight in self.clipped:
                weight.clamp_(-1, 1)

    def __call__(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = self.gradients(pixels, labels)
        self.update()
        return loss
