"""The competitor of `train_step`: the same network as one would write it in plain PyTorch.

Eager float32, torch's own batch norm and Adam, signs made anew at each use. Nothing here is used
by training.
"""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F

from bnnrun.config import AdamConfig, Binarizer
from bnnrun.nn.layers import Block
from bnnrun.nn.losses import squared_hinge
from bnnrun.nn.network import Network
from bnnrun.nn.optim import Rule


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, r: torch.Tensor, ste: bool) -> torch.Tensor:
        ctx.save_for_backward(r)
        ctx.ste = ste
        return r.ge(0).to(r.dtype).mul_(2).sub_(1)  # several times faster than torch.where

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        (r,) = ctx.saved_tensors
        return (g * (r.abs() <= 1) if ctx.ste else g), None


class EagerStep:
    """A copy of `network` that is trained by plain PyTorch operations."""

    def __init__(self, network: Network, optimizer: Rule, config: AdamConfig) -> None:
        self.network = copy.deepcopy(network)
        self.eps = network.blocks[0].norm.eps
        groups, self.clipped = [], []
        for group, p in zip(optimizer.param_groups, self.network.parameters(), strict=True):
            groups.append({"params": [p], "lr": config.lr * group["scale"]})
            if group["clip"]:
                self.clipped.append(p)
        # torch adds eps to the corrected root; so divided, the first steps are the same.
        eps = config.eps / math.sqrt(1 - config.beta2)
        self.adam = torch.optim.Adam(
            groups, betas=(config.beta1, config.beta2), eps=eps, foreach=False, fused=False
        )

    def gradients(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss; its gradients are left in the parameters."""
        self.adam.zero_grad(set_to_none=True)
        a = self.network.input(pixels)
        for block in self.network.blocks:
            a = self.forward(block, a)
        loss = squared_hinge(a, labels)
        loss.backward()
        return loss.detach()

    def forward(self, block: Block, a: torch.Tensor) -> torch.Tensor:
        """One of the network's blocks."""
        if block.dropout > 0:
            a = F.dropout(a, block.dropout)
        weight = block.product.weight
        w = _Sign.apply(weight, False) if block.product.binary else weight
        if block.layer.is_conv:
            s = F.conv2d(a, w, padding=1)
            s = F.max_pool2d(s, 2) if block.layer.pool else s
        else:
            s = F.linear(a.flatten(1), w)
        y = F.batch_norm(s, None, None, block.norm.gamma, block.norm.beta, True, 0.0, self.eps)
        if block.layer.last:
            return y
        if block.activations is Binarizer.none:
            return F.relu(y)
        q: torch.Tensor = _Sign.apply(y, True)
        return q

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
