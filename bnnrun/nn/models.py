"""The networks: blocks of product, batch norm and Sign, made from a plan (Alg. 1, forward)."""

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from bnnrun.architecture import Layer, plan
from bnnrun.config import ArchConfig, BinarizationConfig, Binarizer, NormConfig
from bnnrun.data.dataset import Kind
from bnnrun.data.preprocess import Input
from bnnrun.nn.binarize import SignActivation, sign
from bnnrun.nn.cuda import NormSign, Passes
from bnnrun.nn.dropout import dropout
from bnnrun.nn.hidden import How, PoolNormActivation, evaluate_hidden
from bnnrun.nn.layers import BinaryProduct, RealProduct
from bnnrun.nn.memory import channels_innermost
from bnnrun.nn.norm import BatchNorm, make_norm
from bnnrun.nn.update import HAS_BYTES


class InputScale(nn.Module):
    """8-bit pixels to network input: (p·x + q) / d, then whitened where the input is.

    Its numbers are part of the network's state: a checkpoint needs no training images to run.
    """

    p: torch.Tensor
    q: torch.Tensor
    d: torch.Tensor
    zca_mean: torch.Tensor | None
    zca_matrix: torch.Tensor | None

    def __init__(self, given: Input) -> None:
        super().__init__()
        for name in ("p", "q", "d"):
            self.register_buffer(name, torch.tensor(getattr(given, name), dtype=torch.float64))
        for name in ("zca_mean", "zca_matrix"):
            array = getattr(given, name)
            self.register_buffer(name, None if array is None else torch.from_numpy(array))

    def forward(self, x: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Pixels (B, C, H, W) uint8 to input of the same shape."""
        a = (self.p.to(dtype) * x.to(dtype) + self.q.to(dtype)) / self.d.to(dtype)
        if self.zca_mean is None or self.zca_matrix is None:
            return a
        whitened = (a.flatten(1) - self.zca_mean.to(dtype)) @ self.zca_matrix.to(dtype)
        return whitened.view_as(a)

    @torch.no_grad()
    def product(self, x: torch.Tensor, layer: BinaryProduct | RealProduct) -> torch.Tensor:
        """The first layer's sums in evaluation, float64.

        Of an affine input they are (p · product(x) + q · product(1)) / d: both products are of
        whole numbers with ±1 and exact, and what padding adds (nothing) stays right at borders.
        """
        if self.zca_matrix is not None or not layer.binary:
            return layer.evaluate(self(x, torch.float64), whole=False)
        # Sums of whole numbers are exact in float32 below 2^24.
        largest = 255 * layer.weight[0].numel()
        kind = torch.float32 if largest < 2**24 else torch.float64
        sums = layer.evaluate(x.to(kind), whole=True).double()
        ones = layer.evaluate(torch.ones_like(x[:1], dtype=kind), whole=True).double()
        return sums.mul_(self.p).add_(self.q * ones).div_(self.d)


class Block(nn.Module):
    """[dropout] -> product -> [pooling] -> batch norm -> Sign or ReLU (none in the output layer).

    Pooling comes before batch norm and Sign: the maximum of ±1 would nearly always be +1.
    """

    def __init__(
        self, layer: Layer, binarization: BinarizationConfig, norm: NormConfig, first: bool
    ) -> None:
        super().__init__()
        self.layer, self.dropout = layer, layer.dropout
        self.binary_input = not first and binarization.activations is not Binarizer.none
        weights, self.activations = binarization.weights, binarization.activations
        self.gated = binarization.gate
        self.product = (
            RealProduct(layer)
            if weights is Binarizer.none
            else BinaryProduct(layer, stochastic=weights is Binarizer.stochastic)
        )
        self.norm = make_norm(layer.outputs, norm, layer.last)

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        """Training: statistics of the batch, a graph for the gradient."""
        if self.dropout > 0:
            a = dropout(a, self.dropout)
        if isinstance(self.product, BinaryProduct):
            s = self.product(a, 1 / (1 - self.dropout) if self.binary_input else 0.0)
            signs = self.activations is Binarizer.sign
            if self.product.passes is not None and signs and self._is_batch_normed():
                return self._norm_sign(s, self.product.passes)
        else:
            s = self.product(a)
        if self._fuses(s):
            gamma, beta = self.norm.gamma, self.norm.beta
            a, mean, inv_std = PoolNormActivation.apply(s, gamma, beta, self._how())
            self.norm.track(mean, inv_std)
            return a
        y: torch.Tensor = self.norm(self._pool(s))
        if self.layer.last:
            return y
        if self.activations is Binarizer.none:
            return F.relu(y)
        drawn = self.activations is Binarizer.stochastic
        return cast(torch.Tensor, SignActivation.apply(y, drawn, self.gated))

    def _norm_sign(self, s: torch.Tensor, passes: Passes) -> torch.Tensor:
        p = channels_innermost(self._pool(s))
        norm = self.norm
        q, line = NormSign.apply(p, norm.gamma, norm.beta, self._how(), passes)
        norm.track(line[0], line[3])
        return cast(torch.Tensor, q)

    def _how(self) -> How:
        relu = self.activations is Binarizer.none
        return How(self.norm.eps, self.layer.pool, self.gated, relu)

    def _fuses(self, s: torch.Tensor) -> bool:
        """Whether pooling, batch norm and activation are in passes of their own (nn/hidden.py)."""
        odd = any(side % 2 for side in self.layer.size)  # has pixels outside every 2x2
        plain = self._is_batch_normed() and self.activations is not Binarizer.stochastic
        return self._is_fast(s) and plain and not (self.layer.pool and odd)

    def _is_batch_normed(self) -> bool:
        """Whether this is a hidden layer of vanilla batch norm."""
        return type(self.norm) is BatchNorm and not self.layer.last

    def _is_fast(self, s: torch.Tensor) -> bool:
        return self.product.fast and self.product.passes is None and s.is_cpu

    def arithmetic(self) -> str:
        """By what training multiplies here, for the record."""
        product = self.product
        if isinstance(product, BinaryProduct) and product.fast and product.passes is not None:
            return "TF32" if self.binary_input else "sums float32, gradients TF32"
        whole = self.binary_input
        if not isinstance(product, BinaryProduct) or not product.counts(product.weight, whole):
            filtered = product.by_filtering(product.weight)
            return "float32, by Winograd's filtering" if filtered else "float32"
        if self.layer.is_conv:
            return "sums counted, gradients by Winograd's filtering"
        if not self.binary_input:
            return "sums by tables, g_W float32"
        g_w = "16-bit numbers" if HAS_BYTES else "float32"
        return f"sums counted, g_a by tables, g_W {g_w}"

    def conclude(self, s: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Evaluation of a hidden layer: (activations, share of closed gates, |y| > 1)."""
        if self._is_fast(s):
            relu = self.activations is Binarizer.none
            return evaluate_hidden(s, self.norm.affine(), self.layer.pool, relu)
        y = self.normalize(s)
        return self.activate(y), (y.abs() > 1).double().mean().item()

    def normalize(self, s: torch.Tensor) -> torch.Tensor:
        """Evaluation, from sums to what Sign or argmax sees: running statistics, float64."""
        return self.norm.evaluate(self._pool(s))

    def activate(self, y: torch.Tensor) -> torch.Tensor:
        """Evaluation, the activations of a hidden layer, float32; never drawn."""
        return (F.relu(y) if self.activations is Binarizer.none else sign(y)).float()

    def _pool(self, s: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(s, 2) if self.layer.pool else s


class Network(nn.Module):
    """A classifier of 8-bit images.

    Shapes:
        x: (B, channels, height, width) uint8
        returns (B, classes) scores; the largest is the answer
    """

    def __init__(
        self,
        arch: ArchConfig,
        binarization: BinarizationConfig,
        norm: NormConfig,
        kind: Kind,
        given: Input,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.input = InputScale(given)
        self.stack = nn.ModuleList(
            Block(layer, binarization, norm, first=i == 0)
            for i, layer in enumerate(plan(arch, kind))
        )

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks, first to last."""
        return cast(tuple[Block, ...], tuple(self.stack))

    def configure(
        self,
        *,
        fast: bool | None = None,
        deferred: bool | None = None,
        passes: Passes | None = None,
    ) -> None:
        """How layers work (Product, BinaryProduct); None leaves it as it is."""
        for block in self.blocks:
            block.product.fast = block.product.fast if fast is None else fast
        for product in self.binary_products:
            product.deferred = product.deferred if deferred is None else deferred
            product.passes = product.passes if passes is None else passes

    @property
    def binary_products(self) -> tuple[BinaryProduct, ...]:
        """Of the blocks that have one, first to last."""
        products = (block.product for block in self.blocks)
        return tuple(p for p in products if isinstance(p, BinaryProduct))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores in training, float32."""
        a: torch.Tensor = self.input(x)
        for block in self.blocks:
            a = block(a)
        return a

    @torch.no_grad()
    def evaluate(self, x: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
        """(scores in evaluation, float64; share of closed gates, |y| > 1, of each hidden layer).

        There is no dropout and nothing is drawn; in a binary network every sum is a whole number
        and exact, so the scores are the same whatever the batch.
        """
        closed: list[float] = []
        a = x
        for block in self.blocks[:-1]:
            a, share = block.conclude(self._sums(block, a))
            closed.append(share)
        return self.blocks[-1].normalize(self._sums(self.blocks[-1], a)), closed

    def trace(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """What Sign sees in evaluation, float64, layer by layer; last the scores."""
        a = x
        for block in self.blocks:
            y = block.normalize(self._sums(block, a))
            yield y
            if not block.layer.last:
                a = block.activate(y)

    def _sums(self, block: Block, a: torch.Tensor) -> torch.Tensor:
        """A layer's sums in evaluation."""
        if block is self.blocks[0]:
            return self.input.product(a, block.product)
        product = block.product
        if (
            isinstance(product, BinaryProduct)
            and not product.stochastic
            and block.binary_input
            and product.counts(a, whole=True)
        ):
            return product.count(a)
        return product.evaluate(a, whole=block.binary_input)
