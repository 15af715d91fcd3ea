"""Alg. 1 as it is printed, in plain PyTorch: the reference engine.

Every other engine is a subclass that computes the same faster and calls `super()` for the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import torch
import torch.nn.functional as F
from torch.profiler import record_function

from bnnrun.config import Binarizer, EngineChoice, Estimator
from bnnrun.nn import sampling
from bnnrun.nn.layers import EXACT_FLOAT32, Block
from bnnrun.nn.losses import squared_hinge
from bnnrun.nn.network import Network
from bnnrun.nn.optim import Rule
from bnnrun.nn.quantizers import levels, quantize
from bnnrun.nn.sampling import Use

UPDATE = "update of all parameters"  # by which a profile knows it


class Algorithm(Enum):
    """By what numbers are multiplied and summed."""

    float32 = "float32"
    float64 = "float64"
    winograd = "Winograd float32"
    popcount = "popcount"
    lut = "LUT float32"
    int16 = "16-bit integers"
    tf32 = "TF32"


@dataclass(frozen=True)
class Description:
    """How an engine computes a block in training.

    Attributes:
        product, input_gradient, weight_gradient: of s, g_a and g_W
        fused_norm:   pooling, batch norm and activation are fused, forward and backward
        fused_update: so is the update of the parameters
        deferred:     g_W is never stored: the update computes it while it reads the weights
    """

    product: Algorithm = Algorithm.float32
    input_gradient: Algorithm = Algorithm.float32
    weight_gradient: Algorithm = Algorithm.float32
    fused_norm: bool = False
    fused_update: bool = False
    deferred: bool = False

    def __str__(self) -> str:
        """'popcount; g_a LUT float32; g_W 16-bit integers; norm fused; update fused'."""
        norm, update = ("fused" if f else "plain" for f in (self.fused_norm, self.fused_update))
        return (
            f"{self.product.value}; g_a {self.input_gradient.value}; "
            f"g_W {self.weight_gradient.value}; norm {norm}; update {update}"
        )


class Engine:
    """Training a BNN (Alg. 1), and running it in the arithmetic of evaluation.

    In training, a_0 is the scaled image and, for layers k = 1 .. L,

        forward   W_k^b = Binarize(W_k);  s_k = a_{k-1}^b · W_k^b
                  a_k = BatchNorm(s_k);  a_k^b = Binarize(a_k) for k < L
        backward  g_{a_k} = g_{a_k^b} · 1[|a_k| <= 1] for k < L;  g_{s_k} = BackBatchNorm(g_{a_k})
                  g_{a_{k-1}^b} = g_{s_k} · W_k^b;  g_{W_k^b} = g_{s_k}ᵀ · a_{k-1}^b
        update    W_k <- clip(W_k - c_k · step(g_{W_k^b}), -1, 1), and the same for gamma and beta
                  without c_k and clip; the rate decays from epoch to epoch (schedule.py)

    Backward is torch.autograd's of what `forward` does, with the quantizers' own gradients.

    Attributes:
        network, optimizer: what a step changes; no optimizer: evaluation alone
        seed:     of random bits
        step_key: key of the random bits of the running step (nn/sampling.py)
        deferred: gradients may be left in a form of the engine's own, for `update` alone
    """

    name = EngineChoice.reference
    deferred = False

    def __init__(self, network: Network, optimizer: Rule | None = None, seed: int = 0) -> None:
        self.network, self.optimizer, self.seed = network, optimizer, seed
        self.step_key = sampling.step_key(seed, 0)

    def compile(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        """Compile what steps and evaluation call, so that none of them waits for it.

        The images are any, two or more: a compiled kernel runs on minibatches of all sizes.

        Shapes: pixels (B, C, H, W) uint8; labels (B,) int64
        """
        self.evaluate(pixels)

    def step(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One minibatch of Alg. 1. Returns the loss, detached, valid until the next step.

        Shapes: pixels (B, C, H, W) uint8; labels (B,) int64; returns a scalar
        """
        self.advance()
        return self.compute(pixels, labels)

    @property
    def mode(self) -> str:
        """How a step is launched: "eager", or an engine's own way."""
        return "eager"

    def advance(self) -> None:
        """Begin a step: all that differs from the step before, but for the images."""
        assert self.optimizer is not None
        self.optimizer.advance()
        self.step_key = sampling.step_key(self.seed, self.optimizer.t)

    def compute(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Forward, backward, update."""
        loss = self.gradients(pixels, labels)
        with record_function(UPDATE):
            self.update()
        return loss

    def gradients(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss, detached; its gradients are left in `grad` of the parameters."""
        self.network.zero_grad(set_to_none=True)
        loss = squared_hinge(self.forward(pixels), labels)
        loss.backward()
        return loss.detach()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scores in training, (B, classes) float32."""
        a: torch.Tensor = self.network.input(pixels)
        for block in self.network.blocks:
            a = self.block(block, a)
        return a

    def block(self, block: Block, a: torch.Tensor) -> torch.Tensor:
        """One layer: its input to the next layer's, or to the scores."""
        return self.norm_act(block, self.product(block, self.dropout(block, a)))

    def dropout(self, block: Block, a: torch.Tensor) -> torch.Tensor:
        """a / (1 - share) where kept, else 0."""
        if block.dropout == 0:
            return a
        dropped = self.sample(block, Use.dropout, a) < sampling.dropped_below(block.dropout)
        return (a * (1 / (1 - block.dropout))).masked_fill(dropped, 0)

    def product(self, block: Block, a: torch.Tensor) -> torch.Tensor:
        """s = a · W^b, the pre-activations."""
        s: torch.Tensor = block.product(a, self.binarize(block))
        return s

    def binarize(self, block: Block) -> torch.Tensor:
        """W^b of binary weights, or the real ones."""
        product = block.product
        if not product.binary:
            return product.weight
        w = product.weight
        sampled_by = self.sample(block, Use.weights, w) if product.stochastic else None
        return quantize(w, Estimator.identity, sampled_by, bits=block.layer.weight_bits)

    def norm_act(self, block: Block, s: torch.Tensor) -> torch.Tensor:
        """Pooling, batch norm by the minibatch's statistics, and the activation."""
        y: torch.Tensor = block.norm(block.pool(s))
        if block.layer.last:
            return y
        if block.activations is Binarizer.none:
            return F.relu(y)
        sampled = block.activations is Binarizer.stochastic
        sampled_by = self.sample(block, Use.activations, y) if sampled else None
        return quantize(y, block.estimator, sampled_by, bits=block.layer.output_bits)

    def update(self) -> None:
        """Move every parameter by its step."""
        assert self.optimizer is not None
        self.optimizer.apply()

    def sample(self, block: Block, use: Use, like: torch.Tensor) -> torch.Tensor:
        """The step's random bits (sampling.random_bits), in the shape of `like`."""
        key = sampling.layer_key(self.step_key.to(like.device), block.index, use)
        return sampling.random_bits(key, like.shape)

    @torch.no_grad()
    def evaluate(self, pixels: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
        """(scores in evaluation, (B, classes) float64; saturated share of each hidden layer).

        There is no dropout and nothing is sampled. In a binary network every pre-activation is an
        integer and exact, so the scores do not depend on the batch. Of a hidden layer the share is
        that of |y| > 1.
        """
        *hidden, last = self.network.blocks
        saturated: list[float] = []
        a = pixels
        for block in hidden:
            a, share = self.evaluate_norm_act(block, self.evaluate_product(block, a))
            saturated.append(share)
        return self.evaluate_norm(last, self.evaluate_product(last, a)), saturated

    @torch.no_grad()
    def trace(self, pixels: torch.Tensor) -> Iterator[torch.Tensor]:
        """What Sign sees in evaluation, float64, layer by layer; last the scores."""
        a = pixels
        for block in self.network.blocks:
            y = self.evaluate_norm(block, self.evaluate_product(block, a))
            yield y
            if not block.layer.last:
                a = self.evaluate_activation(block, y)

    def evaluate_product(self, block: Block, a: torch.Tensor) -> torch.Tensor:
        """The pre-activations in evaluation, exact where they are integers, or n_a n_w times are.

        Shapes: a: pixels (B, C, H, W) uint8 of the first layer, else float32; returns float
        """
        if block.index == 0:
            return self._evaluate_first(block, a)
        s = block.product.accumulators(a, self.evaluated_weights(block).to(a.dtype))
        if block.product.binary and block.binary_input:
            # A convolution may transform its operands and leave integers off by far less than 1/2.
            s = s.round()
        unit = block.layer.unit
        return s if unit == 1 else s.double() / unit

    def evaluated_weights(self, block: Block) -> torch.Tensor:
        """W^b of binary weights, never sampled, or the real ones."""
        product = block.product
        return levels(product.weight, block.layer.weight_bits) if product.binary else product.weight

    def _evaluate_first(self, block: Block, x: torch.Tensor) -> torch.Tensor:
        """Those of the first layer, float64.

        Of an affine input they are (p · product(x) + q · product(1)) / d: both products are of
        integers with ±1 and exact, and what padding adds (nothing) stays right at borders.
        """
        scale, product, layer = self.network.input, block.product, block.layer
        w = self.evaluated_weights(block)
        if scale.zca_matrix is not None or not product.binary:
            return product(scale(x, torch.float64), w.double())  # type: ignore[no-any-return]
        dtype = torch.float32 if 255 * layer.unit * layer.k < EXACT_FLOAT32 else torch.float64
        w = w.to(dtype)
        s = product.accumulators(x.to(dtype), w).round().double()
        ones = product.accumulators(torch.ones_like(x[:1], dtype=dtype), w).round().double()
        result: torch.Tensor = s.mul_(scale.p).add_(scale.q * ones).div_(scale.d * layer.unit)
        return result

    def evaluate_norm_act(self, block: Block, s: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Evaluation of a hidden layer: (activations, float32; saturated share, |y| > 1)."""
        y = self.evaluate_norm(block, s)
        return self.evaluate_activation(block, y), (y.abs() > 1).double().mean().item()

    def evaluate_norm(self, block: Block, s: torch.Tensor) -> torch.Tensor:
        """Pooling and batch norm by the running statistics, float64: what Sign or argmax sees."""
        return block.norm.evaluate(block.pool(s))

    def evaluate_activation(self, block: Block, y: torch.Tensor) -> torch.Tensor:
        """The activations of a hidden layer, float32; never sampled."""
        if block.activations is Binarizer.none:
            return F.relu(y).float()
        return levels(y, block.layer.output_bits).float()

    def describe(self, block: Block) -> Description:
        """How training computes a block: the only source of what record and roofline say."""
        exact = Algorithm.float32 if block.product.fits_float32 else Algorithm.float64
        return Description(exact, exact, exact)
