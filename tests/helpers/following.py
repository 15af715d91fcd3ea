"""The reference beside a fast engine, so that a rounding is compared where it arises.

An engine rounds otherwise than the reference. A choice that lies nearer to its edge than the
rounding (a sign, ReLU, the largest of a window, a step of AP2) may turn by it, and all that follows
then differs by far more, though nothing is wrong. So that no tolerance must allow for that,

- `Following` goes on from the engine's own pre-activations, once it has compared them: pooling and
  shift-based batch norm choose from the same numbers, to the bit;
- `Edges` counts the activations that lie within rounding of an edge; other images are then taken;
- `Following.update` asks where gradients that are a rounding smaller or larger move a parameter.
"""

import copy
from typing import NamedTuple

import torch

from bnnrun.config import Binarizer, Estimator
from bnnrun.nn import sampling
from bnnrun.nn.engine import Engine
from bnnrun.nn.layers import Block
from bnnrun.nn.network import Network
from bnnrun.nn.norm import BatchNorm, ShiftBatchNorm, ap2
from bnnrun.nn.optim import Rule
from bnnrun.nn.quantizers import identity
from bnnrun.nn.quantizers.levels import thresholds
from bnnrun.nn.sampling import Use

# Of a product of real numbers, by the norm of each channel. Winograd's filtering is off by 1e-6 of
# the norm of all (engine/cpu/winograd.py), by three times that in a channel of large outliers.
PRODUCT = 2.0**-17
# Of y = (p - mean) · scale + beta, by (|p| + |mean|) · scale + |beta|: six roundings of 2^-24 by
# each engine, in whatever order it takes these operations.
NORM = 2.0**-20
# Of 1 / deviation by shift-based batch norm: a sum of float32 in pairs, a root.
SHIFT = 2.0**-20
# Of gradients, by the norm: 16-bit integers are off by 2^-14 (engine/cpu/factors.py), all others by
# 2^-17 after some layers (TF32's are float32's on the processor). Four times the first.
GRADIENT = 2.0**-12
# Of gradients in which almost everything cancels, by the largest norm of any parameter's. Without
# an estimator's clip a batch norm takes out the mean that beta before it would get: of g_beta,
# which is 0, nothing but roundings are left.
CANCELLED = 2.0**-18
LARGEST = 4  # of 10^4 or 10^5 roundings, by their rms
FEW = 2.0**-21  # eight roundings of 2^-24: those of an update


def is_exact(block: Block) -> bool:
    """Whether the pre-activations are integers, times a power of two, before one division."""
    return block.binary_input and block.product.binary and block.dropout in {0, 0.5}


def product_rounding(block: Block, s: torch.Tensor) -> torch.Tensor:
    """The rms of what pre-activations may be off by, of each channel: (1, N, 1, ...)."""
    return (0 if is_exact(block) else PRODUCT) * rms(s.detach())


def rms(s: torch.Tensor) -> torch.Tensor:
    """Of each channel."""
    return s.square().mean([0, *range(2, s.dim())], keepdim=True).sqrt()


class Reach(NamedTuple):
    """What gradients a rounding smaller or larger make of a parameter or of a moment.

    Attributes:
        least, largest: its new values
        certain: where the gradient is 16 times its rounding or more; elsewhere nothing is said
    """

    least: torch.Tensor
    largest: torch.Tensor
    certain: torch.Tensor

    def holds(self, t: torch.Tensor) -> bool:
        """Whether each number lies where it may."""
        inside = (t >= self.least) & (t <= self.largest)
        return bool((inside | ~self.certain).all())


class Following(Engine):
    """The reference, which goes on from the pre-activations that another engine has computed.

    Attributes:
        preactivations: those of the other engine's latest step, by block
        reaches: of the latest step, for each parameter: of itself ("w"), and of its moments
    """

    def __init__(self, other: Engine, network: Network, optimizer: Rule, seed: int) -> None:
        super().__init__(network, optimizer, seed)
        self.preactivations: dict[int, torch.Tensor] = {}
        self.reaches: list[dict[str, Reach]] = []
        product = other.product

        def keep(block: Block, a: torch.Tensor) -> torch.Tensor:
            s = self.preactivations[block.index] = product(block, a)
            return s

        other.product = keep

    def product(self, block: Block, a: torch.Tensor) -> torch.Tensor:
        """The other engine's s, with the reference's gradient."""
        s, theirs = super().product(block, a), self.preactivations[block.index].detach()
        assert theirs.shape == s.shape
        assert (rms(theirs - s) <= product_rounding(block, s)).all(), block.layer.name
        return identity.estimate(s, theirs)

    @torch.no_grad()
    def update(self) -> None:
        """Move every parameter; before that, see what roundings of its gradient would do."""
        members = list(self.optimizer.members())
        norm = max(w.grad.norm() for w, _, _ in members)
        self.reaches = [self._reach(*member, CANCELLED * norm) for member in members]
        super().update()

    def _reach(
        self, w: torch.Tensor, state: dict, group: dict, cancelled: torch.Tensor
    ) -> dict[str, Reach]:
        g = w.grad
        each = list(range(1, g.dim())) or [0]  # of a matrix or of filters, each output by itself
        size = g.square().mean(each, keepdim=True).sqrt()
        rounding = LARGEST * (GRADIENT * size + cancelled / g.numel() ** 0.5)
        certain = g.abs() >= 16 * rounding
        moved = [self._moved(w, g + off, state, group) for off in (-rounding, 0, rounding)]
        reaches = {}
        for name in moved[0]:
            least, largest = torch.stack([tensors[name] for tensors in moved]).aminmax(dim=0)
            slack = FEW * torch.maximum(least.abs(), largest.abs())
            if name == "w":
                # On the way to a step of AP2 it goes further than by both ends: by 1 / 16 at most.
                slack += torch.maximum((least - w).abs(), (largest - w).abs()) / 16
            reaches[name] = Reach(least - slack, largest + slack, certain)
        return reaches

    def _moved(
        self, w: torch.Tensor, g: torch.Tensor, state: dict, group: dict
    ) -> dict[str, torch.Tensor]:
        """The parameter, and its moments, after an update by `g`."""
        w, state = w.detach().clone(), copy.deepcopy(state)
        w.grad = g
        self.optimizer.update(w, state, group)
        return {"w": w, **{name: t for name, t in state.items() if isinstance(t, torch.Tensor)}}


class Edges(Engine):
    """The reference's forward pass, which counts the activations within rounding of an edge.

    Where an engine leaves a block to the reference's own code, equal numbers are chosen from alike.

    Args:
        t:     of the step, from 1
        fused: the blocks whose batch norm and activation the other engine computes itself
    """

    def __init__(self, network: Network, seed: int, t: int, fused: set[int]) -> None:
        super().__init__(copy.deepcopy(network), None, seed)
        self.step_key = sampling.step_key(seed, t)
        self.fused, self.count = fused, 0

    def norm_act(self, block: Block, s: torch.Tensor) -> torch.Tensor:
        if block.index in self.fused:
            on_edge = {BatchNorm: self._on_edge, ShiftBatchNorm: self._shift_on_edge}
            # Whoever fuses another norm adds its edges here.
            self.count += on_edge[type(block.norm)](block, block.pool(s))
        return super().norm_act(block, s)

    def _shift_on_edge(self, block: Block, p: torch.Tensor) -> int:
        """How many channels' 1 / deviation; p - mean, and so y, are the same to the bit."""
        inv_std = block.norm.normalize(p)[2]
        rounding = SHIFT if is_exact(block) else LARGEST * PRODUCT
        return int((ap2(inv_std * (1 - rounding)) != ap2(inv_std * (1 + rounding))).sum())

    def _on_edge(self, block: Block, p: torch.Tensor) -> int:
        """How many; none of those that are on it exactly, by a scale and a beta of 0."""
        y, mean, inv_std = block.norm.normalize(p)
        mean, scale, beta = (
            t.abs().view(1, -1, *[1] * (p.dim() - 2))
            for t in (mean, block.norm.gamma * inv_std, block.norm.beta)
        )
        of_product = LARGEST * product_rounding(block, p)
        rounding = NORM * ((p.abs() + mean) * scale + beta) + of_product * scale
        real, sampled = (block.activations is b for b in (Binarizer.none, Binarizer.stochastic))
        edges = [] if real or block.estimator is not Estimator.ste else [-1, 1]
        if sampled:
            edges.append(self.sample(block, Use.activations, y) / 2**31 - 1)
        else:
            edges += thresholds(block.layer.output_bits, y.dtype).tolist()
        return sum(int(((y - edge).abs() < rounding).sum()) for edge in edges)
