"""Packed networks of random weights and odd shapes, and what holds of whatever runs them."""

import math

import numpy as np

from bnnrun.architecture import plan
from bnnrun.config import (
    BinarizationConfig,
    Binarizer,
    ConvNetConfig,
    FirstLayer,
    MlpConfig,
)
from bnnrun.data.dataset import ImageSpec
from bnnrun.gemm.bits import pack
from bnnrun.runtime.model import PackedLayer, PackedModel, borders
from bnnrun.runtime.reference import ReferenceNetwork

FIRSTS = [FirstLayer.bytes, FirstLayer.planes]
SHAPES = [(1, 1), (1, 5), (5, 1), (1, 2), (2, 2), (2, 3), (3, 3), (4, 7)]


def mlp(depth, width):
    return MlpConfig(name="mlp", depth=depth, width=width)


def convnet(channels, fc):
    return ConvNetConfig(name="convnet", channels=channels, fc=fc)


NETWORKS = {
    "one unit": (mlp(1, 1), (1, 1, 1)),
    "five inputs": (mlp(2, 5), (1, 1, 5)),
    "hundred": (mlp(3, 100), (1, 28, 28)),
    "513, odd image": (mlp(2, 513), (3, 13, 11)),
    "one pixel": (convnet([40], []), (1, 1, 1)),
    "one pixel, five colours": (convnet([33], [7]), (5, 1, 1)),
    "2x9": (convnet([40, 2], []), (2, 2, 9)),
    "13x11": (convnet([5, 33, 64, 1, 40], [9, 17]), (3, 13, 11)),
    "two words": (convnet([64, 64], [100]), (3, 8, 8)),
    "odd, pooled to one": (convnet([8, 40, 33, 5], [3]), (1, 5, 7)),
    "wide": (convnet([1, 65], [513]), (1, 4, 3)),
}


# (bits of weights, bits of activations); a list tells those of each layer of "13x11".
MIXES = [(1, 2), (2, 1), (2, 2), (3, 4), (4, 3)]
BY_LAYER = [1, 3, 2, 1, 4, 2, 1, 3], [2, 1, 4, 1, 3, 2, 1]


def model_of(
    layers, image_shape, *, classes=10, levels=255, seed=0, flips="some", thresholds="near"
):
    """A packed model of random weights.

    Args:
        flips:      "some", "all" or "none" of the channels
        thresholds: "near": within the deviation of the sums; "beyond": past them, either side
    """
    rng = np.random.default_rng(seed)
    packed = []
    for i, layer in enumerate(layers):
        largest = layer.k * layer.unit * (levels if i == 0 else 1)
        near = math.isqrt(layer.k) * layer.unit * (levels if i == 0 else 1) + 1
        of_borders = len(borders(*layer.size)[1]) if i == 0 and layer.is_conv else 1
        count = 0 if layer.last else 2**layer.output_bits - 1
        shape = (count, of_borders if count else 0, layer.outputs)
        t = rng.integers(-near, near + 1, shape)
        if thresholds == "beyond":
            t = rng.choice([-largest - 1, -largest, largest, largest + 1], shape)
        flip = {"some": rng.random(layer.outputs) < 0.5}.get(
            flips, np.full(layer.outputs, flips == "all")
        )
        affine = rng.normal(size=(3, layer.outputs if layer.last else 0))
        weight = pack(rng.random((layer.weight_bits, layer.outputs, layer.k)) < 0.5)
        flip &= not layer.last
        t = np.where(flip, -np.sort(-t, axis=0), np.sort(t, axis=0))
        packed.append(PackedLayer(layer, weight, t.astype(np.int32), flip, *affine))
    kind = ImageSpec(image_shape, tuple(map(str, range(classes))), levels)
    return PackedModel(kind, tuple(packed), (2.0, -float(levels), float(levels)), {})


def packed_model(
    arch, image_shape, *, classes=10, levels=255, weight_bits=1, activation_bits=1, **how
):
    kind = ImageSpec(image_shape, tuple(map(str, range(classes))), levels)
    bits = BinarizationConfig(
        Binarizer.sign, Binarizer.sign, weight_bits=weight_bits, activation_bits=activation_bits
    )
    return model_of(plan(arch, kind, bits), image_shape, classes=classes, levels=levels, **how)


def pixels_for(model, n, seed=0):
    shape = (n, *model.spec.image_shape)
    return np.random.default_rng(seed).integers(0, model.spec.max_pixel + 1, shape, dtype=np.uint8)


def assert_same(fast, pixels):
    """Scores, and hidden bits of the last chunk, of a network are those of the definition."""
    slow = ReferenceNetwork(fast.model)
    slow.chunk = fast.chunk
    expected = slow.scores(pixels)
    scores = fast.scores(pixels)
    assert scores.dtype == np.float64
    assert scores.shape == (len(pixels), len(fast.model.spec.classes))
    if len(pixels):
        last = slice((len(pixels) - 1) // fast.chunk * fast.chunk, None)
        (codes, ours), (bits, theirs) = fast.trace(pixels[last]), slow.trace(pixels[last])
        assert len(codes) == len(bits) == len(fast.model.layers) - 1
        for a, b in zip(codes, bits, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(ours, scores[last])
        np.testing.assert_array_equal(theirs, scores[last])
    np.testing.assert_array_equal(scores, expected)
