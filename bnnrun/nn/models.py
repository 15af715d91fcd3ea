"""The networks: blocks of product, batch norm and Sign, made from a plan (Alg. 1, forward)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from bnnrun.architecture import Layer, plan
from bnnrun.config import ArchConfig, BinarizationConfig, Binarizer, NormConfig
from bnnrun.data.dataset import Kind
from bnnrun.nn.binarize import SignActivation, sign
from bnnrun.nn.layers import BinaryLinear, RealLinear
from bnnrun.nn.norm import BatchNorm


class Block(nn.Module):
    """[dropout] -> product -> batch norm -> Sign or ReLU (nothing in the output layer)."""

    def __init__(self, layer: Layer, binarization: BinarizationConfig, norm: NormConfig) -> None:
        super().__init__()
        self.layer = layer
        binary_weights = binarization.weights is not Binarizer.none
        self.product = BinaryLinear(layer) if binary_weights else RealLinear(layer)
        self.norm = BatchNorm(layer.outputs, norm)
        self.binary_activations = binarization.activations is not Binarizer.none

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        """Training: statistics of the batch, a graph for the gradient."""
        if self.layer.dropout > 0:
            a = F.dropout(a, self.layer.dropout)
        y: torch.Tensor = self.norm(self.product(a))
        if self.layer.last:
            return y
        return SignActivation.apply(y) if self.binary_activations else F.relu(y)

    def evaluate(self, a: torch.Tensor, divisor: int = 1) -> torch.Tensor:
        """Evaluation: running statistics, no dropout; s is the product over `divisor`.

        `a` holds whole numbers in a binary network, so that the sums are exact; batch norm is
        float64. Returns float32 activations, or float64 scores from the output layer.
        """
        y = self.norm.evaluate(self.product.evaluate(a).double() / divisor)
        if self.layer.last:
            return y
        return (sign(y) if self.binary_activations else F.relu(y)).float()


class Network(nn.Module):
    """A classifier of 8-bit images.

    Shapes:
        x: (B, channels, height, width) uint8 in [0, levels]
        returns (B, classes) scores; the largest is the answer
    """

    def __init__(
        self,
        arch: ArchConfig,
        binarization: BinarizationConfig,
        norm: NormConfig,
        kind: Kind,
    ) -> None:
        super().__init__()
        self.levels = kind.levels
        self.stack = nn.ModuleList(Block(layer, binarization, norm) for layer in plan(arch, kind))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks, first to last."""
        return cast(tuple[Block, ...], tuple(self.stack))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores in training, float32; the input is scaled to 2x/levels - 1."""
        a = (2 * x.float() / self.levels - 1).flatten(1)
        for block in self.blocks:
            a = block(a)
        return a

    @torch.no_grad()
    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        """Scores in evaluation, float64; of a binary network the same whatever the batch.

        The first layer multiplies the whole numbers 2x - levels and divides its exact sums by
        levels: the same product without rounding.
        """
        a = (2 * x.float() - self.levels).flatten(1)
        for i, block in enumerate(self.blocks):
            a = block.evaluate(a, divisor=self.levels if i == 0 else 1)
        return a
