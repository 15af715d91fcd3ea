"""The steps of the parameters (Alg. 1, "Update": propose, scale by c, clip)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, overload

import numpy as np
import torch
from torch.autograd.graph import increment_version
from torch.profiler import record_function

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
from bnnrun.nn.bits import PackedWeights
from bnnrun.nn.cuda import AdamNumbers, Passes
from bnnrun.nn.kernels.passes import Floats, adam_pass, adamax_pass
from bnnrun.nn.layers import BinaryProduct, Factors, parts, take_factors
from bnnrun.nn.memory import flat, is_dense
from bnnrun.nn.models import Network
from bnnrun.nn.norm import ap2
from bnnrun.nn.update import HAS_BYTES, HAS_REALS, MOST, ByteFactors, RealFactors

UPDATE = "update of all parameters"  # by which a profile knows it
# Torch7's constant, added to v so that parameters without gradient divide by something.
TORCH7_EPS = 2.0**-27
NO_GRADIENT = 2.0**-100


class Rule(torch.optim.Optimizer, ABC):
    """w <- clip(w - scale · step), where a subclass says what the step is.

    A group holds the parameters that share `scale` (c of a binary layer) and `clip`.
    """

    # Whether `update` takes gradients as their factors (nn/layers.py) where a layer leaves them.
    takes_factors = False

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "scale": 1.0, "clip": False})
        self.rate: float | torch.Tensor = lr
        self.passes: Passes | None = None
        self.products: dict[torch.Tensor, BinaryProduct] = {}

    def use(self, passes: Passes, network: Network) -> None:
        """Update by the passes of a GPU, which leave the binary layers' signs."""
        self.passes = passes
        self.products = {product.weight: product for product in network.binary_products}

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter from its gradient."""
        assert closure is None, "the loop computes the gradients"
        self.advance()
        self.apply()
        return None

    def advance(self) -> None:
        """The next step's time and rate: all of it that differs from the last step's.

        On a GPU the rate lies in one place of its memory, so that `apply` can be recorded.
        """
        for group in self.param_groups:
            for w in group["params"]:
                state = self.state[w]
                state["t"] = state.get("t", 0) + 1
        of = self.param_groups[0]
        first = of["params"][0]
        rate = self.rate_at(self.state[first]["t"], of["lr"])
        if not first.is_cuda and self.passes is None:
            self.rate = rate
            return
        place = self.rate if isinstance(self.rate, torch.Tensor) else first.new_empty(1)
        self.rate = place.fill_(rate)

    @torch.no_grad()
    def apply(self) -> None:
        """Update every parameter from its gradient, at the rate of `advance`."""
        with record_function(UPDATE):
            for group in self.param_groups:
                for w in group["params"]:
                    self.update(w, self.state[w], group)

    def update(self, w: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Move one parameter by its scaled step, and clip it."""
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


def _slot(state: dict[str, Any], name: str, like: torch.Tensor) -> torch.Tensor:
    """A tensor of the state, zero at first."""
    if name not in state:
        state[name] = torch.zeros_like(like, memory_format=torch.preserve_format)
    tensor: torch.Tensor = state[name]
    return tensor


def _are_streams(of: tuple[torch.Tensor, ...]) -> bool:
    """Whether one pass can take all of the tensors' memory, element by element."""
    return all(is_dense(t) and t.stride() == of[0].stride() for t in of)


class Adam(Rule):
    """Adam in Lasagne's form.

        m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g²
        step = lr · sqrt(1 - b2^t) / (1 - b1^t) · m / (sqrt(v) + eps)

    eps joins the *uncorrected* root; torch.optim.Adam adds it to the corrected one. It matters
    where gradients come near eps, as they do late in training behind a saturated hinge.
    """

    takes_factors = True

    def __init__(self, groups: list[dict[str, Any]], config: AdamConfig) -> None:
        super().__init__(groups, config.lr)
        self.beta1, self.beta2, self.eps = config.beta1, config.beta2, config.eps

    def propose(self, state: dict[str, Any], g: torch.Tensor) -> torch.Tensor:
        m, v = _slot(state, "m", g), _slot(state, "v", g)
        m.lerp_(g, 1 - self.beta1)
        v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        return m.div(v.sqrt().add_(self.eps))

    def update(self, w: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """The same step in one pass over memory; on the processor gradients are never written
        there where they come as factors.
        """
        factors = take_factors(w)
        m, v = _slot(state, "m", w), _slot(state, "v", w)
        if self.passes is not None:
            self._on_gpu(w, (m, v), group)
        elif factors is None:
            assert w.grad is not None
            if _are_streams((w.detach(), w.grad, m, v)):
                self._pass(w.grad, (w.detach(), m, v), state, group)
            else:
                super().update(w, state, group)
        else:
            self._from_factors(factors, (w.detach(), m, v), state, group)

    def _on_gpu(
        self, w: torch.Tensor, of: tuple[torch.Tensor, torch.Tensor], group: dict[str, Any]
    ) -> None:
        assert self.passes is not None
        assert isinstance(self.rate, torch.Tensor)
        assert w.grad is not None
        product = self.products.get(w)
        signs = product.taken_signs() if product is not None else None
        g = w.grad if w.grad.stride() == w.stride() else torch.empty_like(w).copy_(w.grad)
        numbers = AdamNumbers(self.beta1, self.beta2, self.eps, group["scale"], group["clip"])
        self.passes.adam((w, g, *of), signs, self.rate, numbers)
        increment_version(w)
        if product is not None and signs is not None:
            product.mark_signs()

    def _from_factors(
        self,
        factors: Factors,
        whole: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        state: dict[str, Any],
        group: dict[str, Any],
    ) -> None:
        layer, (w, m, v) = factors.layer, whole
        packed = layer.packed if isinstance(layer.packed, PackedWeights) else None
        by_bytes = HAS_BYTES and factors.unit and len(factors.a) <= MOST
        if packed is not None and (by_bytes or HAS_REALS):
            of = (
                ByteFactors.of(factors.g_s, factors.a, factors.unit)
                if by_bytes
                else RealFactors.of(factors.g_s, factors.a)
            )
            streams = (w.numpy(), m.numpy(), v.numpy())
            of.update(streams, self._constants(group), packed, clip=group["clip"])
        else:
            self._by_parts(factors, whole, packed, state, group)
        if packed is not None:
            layer.mark_packed()

    def _by_parts(
        self,
        factors: Factors,
        of: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        packed: PackedWeights | None,
        state: dict[str, Any],
        group: dict[str, Any],
    ) -> None:
        """Gradient, step and signs of some rows at a time, so that they are still in the cache."""
        rows: torch.Tensor | None = None
        for part in parts(of[0]):
            some = (of[0][part], of[1][part], of[2][part])
            rows = torch.empty_like(some[0]) if rows is None else rows
            self._pass(factors.rows(part, rows), some, state, group)
            if packed is not None:
                packed.pack(some[0], part.start)

    def _pass(
        self,
        g: torch.Tensor,
        of: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        state: dict[str, Any],
        group: dict[str, Any],
    ) -> None:
        w, m, v = map(flat, of)
        adam_pass(w, flat(g), m, v, self._constants(group), group["clip"])
        increment_version(of[0])  # which NumPy does not: packed signs are old now

    def _constants(self, group: dict[str, Any]) -> Floats:
        """What `adam_pass` takes."""
        step = group["scale"] * self.rate
        b1, b2 = self.beta1, self.beta2
        return np.array([b1, 1 - b1, b2, 1 - b2, step, self.eps], np.float32)

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

    def update(self, w: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """The same step; on the processor in one pass over memory."""
        assert w.grad is not None
        of = w.detach(), w.grad, _slot(state, "m", w), _slot(state, "v", w)
        if not _are_streams(of):
            super().update(w, state, group)
            return
        at, g, m, v = map(flat, of)
        b1, b2, step = self.beta1, self.beta2, group["scale"] * self.rate
        constants = np.array([1 - b1, b2, step, TORCH7_EPS, NO_GRADIENT], np.float32)
        by_code = self.rule is AdaMaxRule.code
        adamax_pass(at, g, m, v, constants, group["clip"], by_code)
        increment_version(w)

    def rate_at(self, t: int, lr: float) -> float:
        return ap2(torch.tensor(lr / (1 - self.beta1**t), dtype=torch.float64)).item()

    def propose(self, state: dict[str, Any], g: torch.Tensor) -> torch.Tensor:
        m, v = _slot(state, "m", g), _slot(state, "v", g)
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
        return _slot(state, "u", g).mul_(self.momentum).add_(g).clone()


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
