"""The steps of the parameters (Alg. 1, "Update": propose, scale by c, clip)."""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch

from bnnrun.config import (
    AdaMaxRule,
    AdamConfig,
    Clip,
    LrScale,
    OptimizerConfig,
    SgdConfig,
    ShiftAdaMaxConfig,
)
from bnnrun.errors import InputError
from bnnrun.nn.network import Network
from bnnrun.nn.norm import ap2

# Torch7's constant, added to v so that parameters without gradient divide by something.
TORCH7_EPS = 2.0**-27
NO_GRADIENT = 2.0**-100


class Rule(ABC):
    """w <- clip(w - scale · rate · step), where a subclass says what the step is.

    A group holds the parameters that share `scale` (c of a binary layer) and `clip`. Groups and
    state have the form of a `torch.optim.Optimizer`, which this is not: that class imports
    PyTorch's compiler, more than a second of each run's start.

    Attributes:
        param_groups: {"params": tensors, "lr", "scale", "clip"} each
        state:        of each parameter, what its rule keeps between steps
        rate: what proposed steps are multiplied by in this update; an engine may keep it in a
              tensor, (1,), of its device
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        self.param_groups = [{"lr": lr, "scale": 1.0, "clip": False, **group} for group in groups]
        self.state: defaultdict[torch.Tensor, dict[str, Any]] = defaultdict(dict)
        self.rate: float | torch.Tensor = lr

    @property
    def t(self) -> int:
        """Updates so far, the running one included."""
        t: int = self.state[self.param_groups[0]["params"][0]].get("t", 0)
        return t

    def step(self) -> None:
        """One update of every parameter from its gradient."""
        self.advance()
        self.apply()

    def advance(self) -> None:
        """Advance t and set the rate: the only state that changes between steps, so that `apply`
        can be captured in a CUDA graph.
        """
        for _, state, _ in self.members():
            state["t"] = state.get("t", 0) + 1
        self.rate = self.rate_at(self.t, self.param_groups[0]["lr"])

    @torch.no_grad()
    def apply(self) -> None:
        """Update every parameter from its gradient, at the rate of `advance`."""
        for w, state, group in self.members():
            self.update(w, state, group)

    def members(self) -> Iterator[tuple[torch.Tensor, dict[str, Any], dict[str, Any]]]:
        """(parameter, its state, its group) of every parameter."""
        for group in self.param_groups:
            for w in group["params"]:
                yield w, self.state[w], group

    def state_dict(self) -> dict[str, Any]:
        """Groups and state, a parameter by its number, in the form of torch.optim.Optimizer."""
        groups: list[dict[str, Any]] = []
        state: dict[int, dict[str, Any]] = {}
        for group in self.param_groups:
            first = len(state)
            state |= {first + i: self.state[w] for i, w in enumerate(group["params"])}
            groups.append({**group, "params": list(range(first, len(state)))})
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, on the device of each parameter."""
        for group, theirs in zip(self.param_groups, saved["param_groups"], strict=True):
            for w, number in zip(group["params"], theirs["params"], strict=True):
                state = saved["state"].get(number, {})
                self.state[w] = {
                    name: value.to(w.device) if isinstance(value, torch.Tensor) else value
                    for name, value in state.items()
                }
            group.update({key: value for key, value in theirs.items() if key != "params"})

    def update(self, w: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Move one parameter by its scaled step, and clip it (Alg. 1, "Update")."""
        assert w.grad is not None
        w.sub_(self.propose(state, w.grad).mul_(self.rate), alpha=group["scale"])
        if group["clip"]:
            w.clamp_(-1, 1)

    def rate_at(self, t: int, lr: float) -> float:
        """What the proposed step is multiplied by at time `t`, from 1."""
        return lr

    @abstractmethod
    def propose(self, state: dict[str, Any], g: torch.Tensor) -> torch.Tensor:
        """The step for the gradient `g`, unscaled, of rate 1; new memory."""


def slot(state: dict[str, Any], name: str, like: torch.Tensor) -> torch.Tensor:
    """A tensor of a parameter's state, zero at first."""
    if name not in state:
        state[name] = torch.zeros_like(like, memory_format=torch.preserve_format)
    tensor: torch.Tensor = state[name]
    return tensor


class Adam(Rule):
    """Adam in Lasagne's form.

        m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g²
        step = lr · sqrt(1 - b2^t) / (1 - b1^t) · m / (sqrt(v) + eps)

    eps joins the *uncorrected* root; torch.optim.Adam adds it to the corrected one. It matters
    where gradients come near eps, as they do late in training, when the hinge is saturated.
    """

    def __init__(self, groups: list[dict[str, Any]], config: AdamConfig) -> None:
        super().__init__(groups, config.lr)
        self.beta1, self.beta2, self.eps = config.beta1, config.beta2, config.eps

    def propose(self, state: dict[str, Any], g: torch.Tensor) -> torch.Tensor:
        m, v = slot(state, "m", g), slot(state, "v", g)
        m.lerp_(g, 1 - self.beta1)
        v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        return m.div(v.sqrt().add_(self.eps))

    def rate_at(self, t: int, lr: float) -> float:
        return lr * math.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)


class ShiftAdaMax(Rule):
    """Shift-based AdaMax (arXiv Alg. 4, NIPS Alg. 2), every product one by a power of two.

        m <- b1 m + (1 - b1) g;  v <- max(b2 v, |g|)
        paper: step = AP2(lr / (1 - b1^t)) · m · AP2(1 / v)
        code:  v <- AP2(v) + 2^-27;  step = AP2(lr / (1 - b1^t)) · m / v

    The box prints 1 - b1 for the correction 1 - b1^t. The code writes AP2(v) back, so that its v
    never decays: AP2(0.999 · 2^k) = 2^k. Neither quantizes m.
    """

    def __init__(self, groups: list[dict[str, Any]], config: ShiftAdaMaxConfig) -> None:
        super().__init__(groups, config.lr)
        self.beta1, self.beta2, self.rule = config.beta1, config.beta2, config.rule

    def rate_at(self, t: int, lr: float) -> float:
        return ap2(torch.tensor(lr / (1 - self.beta1**t), dtype=torch.float64)).item()

    def propose(self, state: dict[str, Any], g: torch.Tensor) -> torch.Tensor:
        m, v = slot(state, "m", g), slot(state, "v", g)
        m.lerp_(g, 1 - self.beta1)
        torch.maximum(v.mul_(self.beta2), g.abs(), out=v)
        if self.rule is AdaMaxRule.code:
            v.copy_(ap2(v)).add_(TORCH7_EPS)
            return m.div(v)
        # Without gradients v is 0 or decays to where 1 / v is no number; m does so long before.
        return m.mul(ap2(v.reciprocal().masked_fill_(v < NO_GRADIENT, 0)))


class Sgd(Rule):
    """Gradient descent with momentum: u <- momentum · u + g; step = lr · u."""

    def __init__(self, groups: list[dict[str, Any]], config: SgdConfig) -> None:
        super().__init__(groups, config.lr)
        self.momentum = config.momentum

    def propose(self, state: dict[str, Any], g: torch.Tensor) -> torch.Tensor:
        return slot(state, "u", g).mul_(self.momentum).add_(g).clone()


def make_optimizer(network: Network, config: OptimizerConfig) -> Rule:
    """The optimizer of a configuration, over the groups of `parameter_groups`."""
    groups = parameter_groups(network, config)
    if isinstance(config, AdamConfig):
        return Adam(groups, config)
    if isinstance(config, ShiftAdaMaxConfig):
        return ShiftAdaMax(groups, config)
    if isinstance(config, SgdConfig):
        return Sgd(groups, config)
    raise InputError(f"optimizer={config.name}: no rule of that name; known: adam, sgd, "
                     "shift_adamax")  # fmt: skip


def parameter_groups(network: Network, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Three groups a block: weights (scaled by c where binary), gamma, beta."""
    groups: list[dict[str, Any]] = []
    for block in network.blocks:
        binary, norm = block.product.binary, block.norm
        scale = 1.0
        if binary and config.lr_scale is not LrScale.none:
            scale = block.layer.c
            if config.lr_scale is LrScale.c_power_of_two:
                scale = ap2(torch.tensor(scale, dtype=torch.float64)).item()
        clip_weights = config.clip is Clip.all or (binary and config.clip is Clip.weights)
        clip_rest = config.clip is Clip.all
        of_gamma = math.sqrt(block.layer.outputs / 1.5) if config.scale_gamma else 1.0
        groups += [
            {"params": [block.product.weight], "scale": scale, "clip": clip_weights},
            {"params": [norm.gamma], "scale": of_gamma, "clip": clip_rest},
            {"params": [norm.beta], "scale": 1.0, "clip": clip_rest},
        ]
    return groups
