"""A network as a list of layers: the plan that training, summary and packing share.

Pure Python: neither torch nor a weight is needed to know a network's shapes and counts.
"""

import math
from dataclasses import dataclass

from bnnrun.config import ArchConfig, MlpConfig
from bnnrun.data.dataset import Kind
from bnnrun.errors import InputError


@dataclass(frozen=True)
class Layer:
    """One product with a weight matrix and what follows it: batch norm, then Sign (or scores).

    Attributes:
        name:    such as fc1
        inputs:  K, the length of the sums
        outputs: N, units
        last:    the output layer: its batch norm gives the scores, nothing is binarized
        dropout: share of this layer's *input* that is dropped in training
    """

    name: str
    inputs: int
    outputs: int
    last: bool
    dropout: float

    @property
    def weights(self) -> int:
        """Number of weights, each one bit when packed."""
        return self.inputs * self.outputs

    @property
    def macs(self) -> int:
        """Multiply-accumulates an image."""
        return self.weights

    @property
    def norm_parameters(self) -> int:
        """Learned real numbers: gamma and beta of each output channel."""
        return 2 * self.outputs

    @property
    def c(self) -> float:
        """sqrt((fan_in + fan_out) / 1.5), the factor of the step of binary weights.

        The inverse of Glorot's coefficient sqrt(1.5 / (fan_in + fan_out)) which gives gamma_k in
        Alg. 1 its name: the authors' code divides by it.
        """
        return math.sqrt((self.inputs + self.outputs) / 1.5)


def plan(arch: ArchConfig, kind: Kind) -> list[Layer]:
    """The layers of `arch` for images of a kind."""
    if isinstance(arch, MlpConfig):
        return _plan_mlp(arch, math.prod(kind.image_shape), len(kind.classes))
    raise InputError(f"arch={arch.name}: no builder of that name; known: mlp")


def _plan_mlp(arch: MlpConfig, pixels: int, classes: int) -> list[Layer]:
    sizes = [pixels, *[arch.width] * arch.depth, classes]
    return [
        Layer(
            name=f"fc{i}",
            inputs=sizes[i - 1],
            outputs=sizes[i],
            last=i == len(sizes) - 1,
            dropout=arch.dropout_input if i == 1 else arch.dropout_hidden,
        )
        for i in range(1, len(sizes))
    ]
