"""Alg. 1 on an NVIDIA GPU. What a block is computed by is decided here alone, by `describe`."""

from dataclasses import replace
from typing import Any

import torch
from torch.autograd.graph import increment_version

from bnnrun.config import Binarizer, EngineChoice, Estimator
from bnnrun.engine.cuda.captured_step import CapturedStep
from bnnrun.engine.cuda.fused import AdamNumbers, FusedKernels, NormSign
from bnnrun.engine.cuda.tf32 import Tf32Product
from bnnrun.engine.memory import channels_innermost, filters_innermost
from bnnrun.gemm.cuda_device import Device
from bnnrun.nn.engine import Algorithm, Description, Engine
from bnnrun.nn.layers import Block
from bnnrun.nn.network import Network
from bnnrun.nn.norm import BatchNorm
from bnnrun.nn.optim import Adam, Rule, slot
from bnnrun.nn.quantizers import sign

STALE = -1  # no version of a tensor
# The largest |y| that lets a gradient through.
LIMITS = {Estimator.ste: 1.0, Estimator.identity: float("inf")}


class CudaEngine(Engine):
    """Binary products in TF32, batch norm with Sign and Adam fused, the step captured as a graph.

    TF32 keeps ten bits of an operand, so the pre-activations of ±1 are exact; gradients are rounded
    to it. Steps are on the engine's device; `mode` says whether they are one CUDA graph.
    """

    name = EngineChoice.fast

    def __init__(
        self, network: Network, optimizer: Rule | None = None, seed: int = 0, *, device: Device
    ) -> None:
        super().__init__(network, optimizer, seed)
        filters_innermost(network)
        self.kernels = FusedKernels(device)
        self.signs: dict[torch.Tensor, _Signs] = {
            block.product.weight: _Signs(block.product.weight)
            for block in network.blocks
            if _is_one_bit(block) and not block.product.stochastic
        }
        # What differs from step to step lies in one place on the device.
        on = network.input.p.device
        self.key = torch.zeros((), dtype=torch.int64, device=on)
        self.rate = torch.zeros(1, device=on)
        self.captured = CapturedStep(self.compute, self.invalidate)

    @property
    def mode(self) -> str:
        return self.captured.mode

    def step(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.advance()
        return self.captured(pixels, labels)

    def advance(self) -> None:
        super().advance()
        assert self.optimizer is not None
        self.step_key = self.key.copy_(self.step_key)
        self.optimizer.rate = self.rate.fill_(self.optimizer.rate)

    def invalidate(self) -> None:
        """Invalidate cached signs: a failed capture marked them fresh but ran nothing."""
        for signs in self.signs.values():
            signs.version = STALE

    def product(self, block: Block, a: torch.Tensor) -> torch.Tensor:
        if not _is_one_bit(block):
            return super().product(block, a)
        w = block.product.weight
        signs = self.signs.get(w)
        w_b = self.binarize(block).detach() if signs is None else signs.current()
        scale = 1 / (1 - block.dropout) if block.binary_input else None
        s: torch.Tensor = Tf32Product.apply(
            a if block.layer.is_conv else a.flatten(1), w, w_b, scale
        )
        return s

    def norm_act(self, block: Block, s: torch.Tensor) -> torch.Tensor:
        if not self._fuses_norm(block):
            return super().norm_act(block, s)
        norm, p = block.norm, channels_innermost(block.pool(s))
        limit = LIMITS[block.estimator]
        a: torch.Tensor
        a, line = NormSign.apply(p, norm.gamma, norm.beta, norm.eps, limit, self.kernels)
        norm.track(line[0], line[3])
        return a

    def _fuses_norm(self, block: Block) -> bool:
        return (
            block.product.binary
            and block.layer.output_bits == 1
            and type(block.norm) is BatchNorm
            and not block.layer.last
            and block.activations is Binarizer.sign
            and block.estimator in LIMITS
        )

    @torch.no_grad()
    def update(self) -> None:
        rule = self.optimizer
        assert rule is not None
        for w, state, group in rule.members():
            if isinstance(rule, Adam):
                self._update_adam(rule, w, state, group)
            else:
                rule.update(w, state, group)

    def _update_adam(
        self, rule: Adam, w: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        assert w.grad is not None
        signs = self.signs.get(w)
        buffer = None if signs is None else signs.buffer
        g = w.grad if w.grad.stride() == w.stride() else torch.empty_like(w).copy_(w.grad)
        numbers = AdamNumbers(rule.beta1, rule.beta2, rule.eps, group["scale"], group["clip"])
        moments = slot(state, "m", w), slot(state, "v", w)
        self.kernels.adam((w, g, *moments), buffer, self.rate, numbers)
        increment_version(w)
        if signs is not None:
            signs.version = w._version  # the kernel already left the new signs

    def describe(self, block: Block) -> Description:
        fused_update = isinstance(self.optimizer, Adam)
        fused_norm = self._fuses_norm(block)
        if not _is_one_bit(block):
            return replace(
                super().describe(block), fused_norm=fused_norm, fused_update=fused_update
            )
        s = Algorithm.tf32 if block.binary_input else Algorithm.float32
        return Description(s, Algorithm.tf32, Algorithm.tf32, fused_norm, fused_update)


def _is_one_bit(block: Block) -> bool:
    """Whether the product is that of ±1 weights with pixels, ±1 or real numbers."""
    return block.product.binary and block.layer.unit == 1


class _Signs:
    """Sign(W) of a weight, in one buffer.

    Attributes:
        version: of the weight whose signs the buffer holds
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight, self.version = weight, STALE
        self.buffer = torch.empty_like(weight, requires_grad=False)

    def current(self) -> torch.Tensor:
        """The buffer, holding the signs of the weight as it is now."""
        if self.version != self.weight._version:
            self.buffer.copy_(sign(self.weight.detach()))
        return self.buffer
