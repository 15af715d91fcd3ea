"""A network as a list of layers: the plan that training, summary and packing share.

Pure Python: neither torch nor a weight is needed to know a network's shapes and counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bnnrun.config import (
    ArchConfig,
    BinarizationConfig,
    Binarizer,
    ConvNetConfig,
    Estimator,
    MlpConfig,
)
from bnnrun.data.dataset import ImageSpec
from bnnrun.errors import InputError

ARCHS: dict[str, type[ArchConfig]] = {"mlp": MlpConfig, "convnet": ConvNetConfig}


@dataclass(frozen=True)
class Layer:
    """One product with weights and what follows it: [pooling], batch norm, then Sign (or scores).

    Attributes:
        name:    fc1, conv1, ...
        inputs:  input features, or channels of a convolution
        outputs: output features, or channels
        kernel:  side of a convolution's square kernel (stride 1, padded with zeros to keep the
                 size); 0 for a fully connected layer
        size:    (height, width) of the convolution's output, (1, 1) of a fully connected layer
        pool:    2x2 max-pooling of the pre-activations, before batch norm
        last:    the output layer: its batch norm gives the scores, nothing is binarized
        dropout: share of this layer's *input* that is dropped in training
        weight_bits: bits of a weight
        input_bits:  bits of an input activation; 1 in the first layer, whose input is pixels
        output_bits: bits of an output activation; 1 in the output layer, which has none
    """

    name: str
    inputs: int
    outputs: int
    kernel: int = 0
    size: tuple[int, int] = (1, 1)
    pool: bool = False
    last: bool = False
    dropout: float = 0.0
    weight_bits: int = 1
    input_bits: int = 1
    output_bits: int = 1

    @property
    def is_conv(self) -> bool:
        return self.kernel > 0

    @property
    def taps(self) -> int:
        """Weights of one input channel of one output channel."""
        return max(1, self.kernel**2)

    @property
    def k(self) -> int:
        """K, the length of the sums (away from the border of an image)."""
        return self.inputs * self.taps

    @property
    def weights(self) -> int:
        """Number of weights, each `weight_bits` bits when packed."""
        return self.k * self.outputs

    @property
    def unit(self) -> int:
        """n_a n_w, which divides accumulators of the integers 2c - n; 1 where all have one bit."""
        return int((2**self.input_bits - 1) * (2**self.weight_bits - 1))

    @property
    def macs(self) -> int:
        """Multiply-accumulates an image, the taps on padding counted as the paper's code does."""
        return self.weights * math.prod(self.size)

    @property
    def norm_parameters(self) -> int:
        """Learned real numbers: gamma and beta of each output channel."""
        return 2 * self.outputs

    @property
    def pooled(self) -> tuple[int, int]:
        """(height, width) of the output, after pooling."""
        height, width = self.size
        return (height // 2, width // 2) if self.pool else (height, width)

    @property
    def activations(self) -> int:
        """Numbers of an output image, after pooling."""
        return self.outputs * math.prod(self.pooled)

    @property
    def c(self) -> float:
        """sqrt((fan_in + fan_out) / 1.5), the factor of the step of binary weights.

        fan_in = k² C_in and fan_out = k² C_out of a convolution; pooling does not count. The
        inverse of Glorot's coefficient sqrt(1.5 / (fan_in + fan_out)) which gives gamma_k in
        Alg. 1 its name: the authors' code divides by it.
        """
        return math.sqrt(self.taps * (self.inputs + self.outputs) / 1.5)


def plan(
    arch: ArchConfig, spec: ImageSpec, binarization: BinarizationConfig | None = None
) -> list[Layer]:
    """The layers of `arch` for the images of `spec`, of one bit where no binarization is given.

    Raises:
        InputError: the settings describe no network
    """
    layers = _shapes(arch, spec)
    if binarization is None:
        return layers
    weights, activations = _bits(binarization, len(layers))
    return [
        replace(layer, weight_bits=of_weight, input_bits=of_input, output_bits=of_output)
        for layer, of_weight, of_input, of_output in zip(
            layers, weights, [1, *activations], [*activations, 1], strict=True
        )
    ]


def has_one_bit(binarization: BinarizationConfig) -> bool:
    """Whether no weight and no activation has more bits than one."""
    return all(
        bits_text(bits) == "1" for bits in (binarization.weight_bits, binarization.activation_bits)
    )


def describe(binarization: BinarizationConfig) -> str:
    """'weights sign, activations sign of 2 bits'; bits are told where they are not 1."""
    b = binarization
    parts = ("weights", b.weights, b.weight_bits), ("activations", b.activations, b.activation_bits)
    return ", ".join(f"{what} {how.value}{_of_bits(bits)}" for what, how, bits in parts)


def _of_bits(bits: int | list[int]) -> str:
    text = bits_text(bits)
    return "" if text == "1" else f" of {text} bits"


def bits_text(bits: int | Sequence[int]) -> str:
    """'2' where all layers have as many bits, else those of each: '1-2-2'."""
    each = [str(n) for n in bits] if isinstance(bits, Sequence) else [str(bits)]
    return each[0] if len(set(each)) == 1 else "-".join(each)


def _bits(binarization: BinarizationConfig, layers: int) -> tuple[list[int], list[int]]:
    """(bits of each layer's weights, bits of each hidden layer's activations)."""
    b, key = binarization, "binarization"
    weights = _of_each(f"{key}.weight_bits", b.weight_bits, layers, "layers")
    activations = _of_each(f"{key}.activation_bits", b.activation_bits, layers - 1, "hidden layers")
    for name, bits, binarizer in (
        ("weight", weights, b.weights), ("activation", activations, b.activations)
    ):  # fmt: skip
        if max(bits, default=1) > 1 and binarizer is not Binarizer.sign:
            raise InputError(
                f"{key}.{name}_bits={max(bits)}: needs {key}.{name}s=sign, which is "
                f"{binarizer.value} here"
            )
    if max(activations, default=1) > 1 and b.estimator is Estimator.approx:
        raise InputError(
            f"{key}.activation_bits={max(activations)}: {key}.estimator=approx is the gradient of "
            "one bit; expected ste or identity"
        )
    return weights, activations


def _of_each(key: str, value: Any, count: int, layers_text: str) -> list[int]:
    """`count` numbers of bits, of a setting that gives one or as many."""
    bits = value if isinstance(value, list) else [value] * count
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in bits):
        raise InputError(f"{key}={value}: expected a number from 1 to 8, or a list of such")
    if len(bits) != count:
        raise InputError(f"{key}={value}: {len(bits)} numbers for {count} {layers_text}")
    return bits


def _shapes(arch: ArchConfig, spec: ImageSpec) -> list[Layer]:
    classes = len(spec.classes)
    if isinstance(arch, MlpConfig):
        sizes = [math.prod(spec.image_shape), *[arch.width] * arch.depth, classes]
        return _fully_connected(sizes, arch.dropout_input, arch.dropout_hidden)
    if isinstance(arch, ConvNetConfig):
        convolutions = _convolutions(arch, spec)
        features = convolutions[-1].activations
        return convolutions + _fully_connected([features, *arch.fc, classes], 0.0, 0.0)
    raise InputError(f"arch={arch.name}: no builder of that name; known: {', '.join(ARCHS)}")


def _fully_connected(sizes: list[int], first_dropout: float, dropout: float) -> list[Layer]:
    return [
        Layer(
            name=f"fc{i}",
            inputs=sizes[i - 1],
            outputs=sizes[i],
            last=i == len(sizes) - 1,
            dropout=first_dropout if i == 1 else dropout,
        )
        for i in range(1, len(sizes))
    ]


def _convolutions(arch: ConvNetConfig, spec: ImageSpec) -> list[Layer]:
    """3x3 convolutions, each second one followed by 2x2 pooling."""
    inputs, height, width = spec.image_shape
    layers: list[Layer] = []
    if not arch.channels:
        raise InputError("arch.channels=[]: expected the channels of one convolution or more")
    for i, outputs in enumerate(arch.channels, 1):
        pool = i % 2 == 0
        if pool and min(height, width) < 2:
            raise InputError(
                f"arch.channels: {len(arch.channels)} convolutions pool images of "
                f"{spec.image_shape[1]}x{spec.image_shape[2]} pixels away; name fewer"
            )
        layers.append(Layer(f"conv{i}", inputs, outputs, 3, (height, width), pool))
        inputs = outputs
        if pool:
            height, width = height // 2, width // 2
    return layers
