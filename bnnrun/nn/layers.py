"""Products with a weight matrix: binary (Alg. 1) and real."""

import torch
import torch.nn.functional as F
from torch import nn

from bnnrun.architecture import Layer
from bnnrun.nn.binarize import SignWeight, sign


class BinaryLinear(nn.Module):
    """Fully connected layer with binary weights: s = a · Sign(W)ᵀ  (Alg. 1).

    `weight` stays real-valued: it collects the small steps of the optimizer, which clips it to
    [-1, 1]. A product only ever sees its sign. No bias: the batch normalization that follows
    would subtract it again.

    Shapes:
        weight: (N, K) float in [-1, 1], from U(-1, 1)
        a:      (B, K) float; ±1, times 1/(1 - p) or 0 behind dropout; in the first layer the
                image in [-1, 1]
        returns (B, N) float; whole numbers in [-K, K] when `a` is binary
    """

    binary = True

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(layer.outputs, layer.inputs).uniform_(-1, 1))

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return F.linear(a, SignWeight.apply(self.weight))

    def evaluate(self, a: torch.Tensor) -> torch.Tensor:
        """The same sums without a graph. Whole numbers below 2^24 in, exact sums out."""
        return F.linear(a, sign(self.weight))


class RealLinear(nn.Module):
    """Fully connected layer with real weights, Glorot-uniform as is Lasagne's default: s = a · Wᵀ.

    Shapes as BinaryLinear's.
    """

    binary = False

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(layer.outputs, layer.inputs))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return F.linear(a, self.weight)

    evaluate = forward
