"""A layer: the product with its weights, dropout, pooling, batch norm and activation."""

import torch
import torch.nn.functional as F
from torch import nn

from bnnrun.architecture import Layer
from bnnrun.config import BinarizationConfig, Binarizer, NormConfig
from bnnrun.nn.norm import make_norm

EXACT_FLOAT32 = 2**24  # every integer up to it is a float32


class Product(nn.Module):
    """s = a · Wᵀ, or the convolution of `a` with W: 3x3, stride 1, zeros around the image.

    Numbers of k bits are multiplied as the integers 2c - n (nn/quantizers/levels.py), so that every
    sum is an integer and exact, and the sum is divided once, by n_a n_w.

    `weight` is the latent weight where it is binary: real numbers in [-1, 1], from U(-1, 1), that
    collect the small steps of the optimizer, which clips them. Real weights are Glorot-uniform, as
    is Lasagne's default. No bias: the batch normalization that follows would subtract it again.

    Shapes:
        weight: (N, K) float; (N, C, 3, 3) of a convolution
    """

    def __init__(self, layer: Layer, weights: Binarizer) -> None:
        super().__init__()
        self.layer = layer
        self.binary = weights is not Binarizer.none
        self.stochastic = weights is Binarizer.stochastic
        shape = (layer.inputs, layer.kernel, layer.kernel) if layer.is_conv else (layer.inputs,)
        self.weight = nn.Parameter(torch.empty(layer.outputs, *shape))
        if self.binary:
            nn.init.uniform_(self.weight, -1, 1)
        else:
            nn.init.xavier_uniform_(self.weight)

    def forward(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """The product with `w`, which stands in place of `weight`; both are integers.

        Shapes: a (B, K) or (B, C, H, W); returns (B, N) or (B, N, H, W)
        """
        s, unit = self.accumulators(a, w), self.layer.unit
        return s if unit == 1 else (s / unit).to(a.dtype)

    @property
    def fits_float32(self) -> bool:
        """Whether float32 holds every sum of integers."""
        return self.layer.unit * self.layer.k < EXACT_FLOAT32

    def accumulators(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """n_a n_w times the product; float64 where float32 does not hold every integer."""
        if not self.fits_float32:
            a, w = a.double(), w.double()
        return F.conv2d(a, w, padding=1) if self.layer.is_conv else F.linear(a.flatten(1), w)


class Block(nn.Module):
    """[dropout] -> product -> [pooling] -> batch norm -> Sign or ReLU (none in the output layer).

    Where activations have more than one bit, their quantizer takes the place of Sign. Pooling comes
    before batch norm and Sign: the maximum of ±1 would nearly always be +1. A block holds
    parameters and says what belongs to it; an engine computes.

    Attributes:
        index:        from 0
        dropout:      share of the input that is dropped in training
        binary_input: the input is ±1, or of k bits the integers 2c - n (times 1 / (1 - dropout), or
                      0, in training)
    """

    def __init__(
        self, layer: Layer, binarization: BinarizationConfig, norm: NormConfig, index: int
    ) -> None:
        super().__init__()
        self.layer, self.index, self.dropout = layer, index, layer.dropout
        self.activations, self.estimator = binarization.activations, binarization.estimator
        self.binary_input = index > 0 and self.activations is not Binarizer.none
        self.product = Product(layer, binarization.weights)
        self.norm = make_norm(layer.outputs, norm, layer.last)

    def pool(self, s: torch.Tensor) -> torch.Tensor:
        """The largest of each 2x2 pre-activations, where the layer pools."""
        return F.max_pool2d(s, 2) if self.layer.pool else s
