"""Products with weights: binary (Alg. 1) and real, fully connected and convolutional."""

import torch
import torch.nn.functional as F
from torch import nn

from bnnrun.architecture import Layer
from bnnrun.nn.binarize import SignWeight, sign


class Product(nn.Module):
    """s = a · Wᵀ, or the convolution of `a` with W: 3x3, stride 1, zeros around the image.

    No bias: the batch normalization that follows would subtract it again.

    Shapes:
        weight: (N, K) float; (N, C, 3, 3) of a convolution
        a:      (B, K) float; (B, C, H, W)
        returns (B, N) float; (B, N, H, W)
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.is_conv = layer.is_conv
        shape = (layer.inputs, layer.kernel, layer.kernel) if layer.is_conv else (layer.inputs,)
        self.weight = nn.Parameter(torch.empty(layer.outputs, *shape))

    def multiply(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """The product with given weights."""
        return F.conv2d(a, w, padding=1) if self.is_conv else F.linear(a.flatten(1), w)


class BinaryProduct(Product):
    """Product with binary weights: s = a · Sign(W)ᵀ  (Alg. 1).

    `weight` stays real-valued, in [-1, 1] and from U(-1, 1): it collects the small steps of the
    optimizer, which clips it. A product only ever sees its sign. `a` is ±1 (times 1/(1 - p), or 0,
    behind dropout), so hidden sums are whole numbers in [-K, K].
    """

    binary = True

    def __init__(self, layer: Layer, stochastic: bool) -> None:
        super().__init__(layer)
        self.stochastic = stochastic
        nn.init.uniform_(self.weight, -1, 1)

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return self.multiply(a, SignWeight.apply(self.weight, self.stochastic))

    def evaluate(self, a: torch.Tensor) -> torch.Tensor:
        """The sums of whole numbers below 2^24 in magnitude, exact; without a graph.

        cuDNN may pick an algorithm that transforms its operands and leaves the sums off by
        rounding, far below 1/2.
        """
        s = self.multiply(a, sign(self.weight).to(a.dtype))
        return s.round() if s.is_cuda else s


class RealProduct(Product):
    """Product with real weights, Glorot-uniform as is Lasagne's default."""

    binary = False

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        nn.init.xavier_uniform_(self.weight)

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return self.multiply(a, self.weight)

    def evaluate(self, a: torch.Tensor) -> torch.Tensor:
        """The same without a graph, in the precision of `a`."""
        return self.multiply(a, self.weight.to(a.dtype))
