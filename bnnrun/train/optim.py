"""The steps of the parameters (Alg. 1, "Update": propose, scale by c, clip)."""

import math
from collections.abc import Callable
from typing import Any, overload

import torch

from bnnrun.config import AdamConfig, Clip, LrScale, OptimizerConfig
from bnnrun.errors import InputError
from bnnrun.nn.models import Network


class Adam(torch.optim.Optimizer):
    """Adam in Lasagne's form, with the step of binary weights scaled and clipped.

        m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g²
        w <- w - scale · lr · sqrt(1 - b2^t) / (1 - b1^t) · m / (sqrt(v) + eps)
        w <- clip(w, -1, 1) where `clip`

    eps joins the *uncorrected* root; torch.optim.Adam adds it to the corrected one. It matters
    where gradients come near eps, as they do late in training behind a saturated hinge.
    """

    def __init__(self, groups: list[dict[str, Any]], config: AdamConfig) -> None:
        super().__init__(groups, {"lr": config.lr, "scale": 1.0, "clip": False})
        self.beta1, self.beta2, self.eps = config.beta1, config.beta2, config.eps

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter from its gradient."""
        assert closure is None, "the loop computes the gradients"
        for group in self.param_groups:
            for w in group["params"]:
                state = self.state[w]
                if not state:
                    state["t"] = 0
                    state["m"], state["v"] = torch.zeros_like(w), torch.zeros_like(w)
                state["t"] += 1
                m, v, t = state["m"], state["v"], state["t"]
                m.lerp_(w.grad, 1 - self.beta1)
                v.mul_(self.beta2).addcmul_(w.grad, w.grad, value=1 - self.beta2)
                rate = group["lr"] * math.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)
                w.addcdiv_(m, v.sqrt().add_(self.eps), value=-rate * group["scale"])
                if group["clip"]:
                    w.clamp_(-1, 1)
        return None


def make_optimizer(network: Network, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of a configuration: one group a tensor, as c differs from layer to layer."""
    groups = []
    for block in network.blocks:
        binary = block.product.binary
        scale = block.layer.c if binary and config.lr_scale is LrScale.c else 1.0
        clip = binary and config.clip is Clip.weights
        groups.append({"params": [block.product.weight], "scale": scale, "clip": clip})
        groups.append({"params": [block.norm.gamma, block.norm.beta]})
    if isinstance(config, AdamConfig):
        return Adam(groups, config)
    raise InputError(f"optimizer={config.name}: no rule of that name; known: adam")
