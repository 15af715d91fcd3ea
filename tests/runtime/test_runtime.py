"""Packed networks: the fast one against the definition, and the definition against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_networks import (
    FIRSTS,
    NETWORKS,
    SHAPES,
    assert_same,
    convnet,
    mlp,
    model_of,
    packed_model,
    pixels_for,
)

from bnnrun.architecture import Layer
from bnnrun.config import FirstLayer
from bnnrun.gemm.bits import pack
from bnnrun.gemm.instructions import HAS_FAST_BYTES
from bnnrun.runtime import network as network_module
from bnnrun.runtime.model import PackedLayer, PackedModel, borders
from bnnrun.runtime.network import PackedNetwork
from bnnrun.runtime.reference import ReferenceNetwork

MORE_BITS = [(1, 2), (2, 1), (2, 2), (3, 4), (4, 3)]  # of weights and of activations


@pytest.mark.parametrize("first", FIRSTS, ids=lambda f: f.value)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_bit_and_every_score_is_that_of_the_definition(name, first):
    for levels in (255, 16):
        model = packed_model(*NETWORKS[name], levels=levels, seed=levels)
        fast = PackedNetwork(model, first)
        # In this order: what a larger batch left in the buffers must not be seen.
        for n in (7, 3, 1, 0, 7):
            assert_same(fast, pixels_for(model, n, seed=n))


@pytest.mark.parametrize("first", FIRSTS, ids=lambda f: f.value)
@pytest.mark.parametrize("name", NETWORKS)
def test_pixels_are_read_wherever_they_lie_and_left_as_they_are(name, first):
    model = packed_model(*NETWORKS[name])
    fast, pixels = PackedNetwork(model, first), pixels_for(model, 6)
    expected = fast.scores(pixels)
    at_an_odd_byte = np.zeros(pixels.size + 1, np.uint8)[1:].reshape(pixels.shape)
    at_an_odd_byte[:] = pixels
    in_steps = np.repeat(pixels, 2, axis=0)[::2]
    frozen = pixels.copy()
    frozen.flags.writeable = False
    for each in (at_an_odd_byte, in_steps, frozen, np.asfortranarray(pixels)):
        np.testing.assert_array_equal(fast.scores(each), expected)
        np.testing.assert_array_equal(each, pixels)


@pytest.mark.parametrize("bits", MORE_BITS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_code_and_every_score_of_more_bits_is_that_of_the_definition(name, bits):
    for flips, thresholds, first in (("some", "near", FIRSTS[0]), ("all", "beyond", FIRSTS[1])):
        weight_bits, activation_bits = bits
        model = packed_model(
            *NETWORKS[name], weight_bits=weight_bits, activation_bits=activation_bits,
            flips=flips, thresholds=thresholds,
        )  # fmt: skip
        fast = PackedNetwork(model, first)
        for n in (7, 1, 7):
            assert_same(fast, pixels_for(model, n, seed=n))


@pytest.mark.parametrize("first", FIRSTS, ids=lambda f: f.value)
def test_each_layer_may_have_its_own_bits(first):
    model = packed_model(
        *NETWORKS["13x11"], weight_bits=[1, 2, 1, 3, 1, 4, 2, 1],
        activation_bits=[2, 1, 3, 1, 4, 1, 2],
    )  # fmt: skip
    assert_same(PackedNetwork(model, first), pixels_for(model, 5))


@pytest.mark.parametrize("first", FIRSTS, ids=lambda f: f.value)
@pytest.mark.parametrize("levels", [1, 2, 16, 127, 128, 255])
def test_pixels_of_any_number_of_levels(first, levels):
    for name in ("five inputs", "2x9"):
        model = packed_model(*NETWORKS[name], levels=levels)
        fast = PackedNetwork(model, first)
        assert_same(fast, pixels_for(model, 4))
        assert_same(fast, np.full((4, *model.spec.image_shape), levels, np.uint8))
        assert_same(fast, np.zeros((4, *model.spec.image_shape), np.uint8))


@pytest.mark.parametrize("first", FIRSTS, ids=lambda f: f.value)
@pytest.mark.parametrize("flips", ["all", "none", "some"])
@pytest.mark.parametrize("thresholds", ["near", "beyond"])
def test_flipped_channels_and_constant_ones(first, flips, thresholds):
    for name in ("five inputs", "2x9", "odd, pooled to one"):
        model = packed_model(*NETWORKS[name], flips=flips, thresholds=thresholds, seed=5)
        assert_same(PackedNetwork(model, first), pixels_for(model, 6))


@pytest.mark.parametrize("name", ["five inputs", "2x9"])
@pytest.mark.parametrize("first", FIRSTS, ids=lambda f: f.value)
def test_batches_of_a_chunk_one_more_and_several(monkeypatch, name, first):
    monkeypatch.setattr(network_module, "MAX_CHUNK", 6)
    model = packed_model(*NETWORKS[name])
    fast = PackedNetwork(model, first)
    assert fast.chunk == 6
    for n in (5, 6, 7, 12, 13):
        assert_same(fast, pixels_for(model, n, seed=n))


def test_chunks_as_large_as_they_are_made_by_default():
    model = packed_model(mlp(1, 40), (1, 2, 5))
    fast = PackedNetwork(model)
    for n in (fast.chunk, fast.chunk + 1):
        assert_same(fast, pixels_for(model, n))


def test_a_layer_too_large_for_the_memory_goes_image_by_image(monkeypatch):
    monkeypatch.setattr(network_module, "CHUNK_BYTES", 1)
    model = packed_model(*NETWORKS["13x11"])
    fast = PackedNetwork(model)
    assert fast.chunk == 1
    assert_same(fast, pixels_for(model, 3))


def test_the_definition_does_not_depend_on_its_chunks():
    model = packed_model(*NETWORKS["2x9"])
    pixels = pixels_for(model, 7)
    at_once, in_parts = ReferenceNetwork(model), ReferenceNetwork(model)
    in_parts.chunk = 3
    np.testing.assert_array_equal(at_once.scores(pixels), in_parts.scores(pixels))


def test_the_first_layer_is_what_was_asked_for_or_what_the_processor_has():
    model = packed_model(*NETWORKS["five inputs"])
    for first in FIRSTS:
        assert PackedNetwork(model, first).first_layer_method is first
    expected = FirstLayer.bytes if HAS_FAST_BYTES else FirstLayer.planes
    assert PackedNetwork(model).first_layer_method is expected


@pytest.mark.parametrize("first", FIRSTS, ids=lambda f: f.value)
def test_pooling_behind_the_first_convolution(first):
    """No network of `plan` has it, but the file can: thresholds then differ within a window."""
    layers = [
        Layer("conv1", 2, 33, 3, (5, 4), pool=True),
        Layer("conv2", 33, 7, 3, (2, 2), pool=False),
        Layer("fc1", 28, 10, last=True),
    ]
    model = model_of(layers, (2, 5, 4))
    assert_same(PackedNetwork(model, first), pixels_for(model, 5))


@pytest.mark.parametrize("first", FIRSTS, ids=lambda f: f.value)
def test_sums_past_what_float32_counts_are_compared_exactly(first):
    """300x300 pixels sum to more than 2^24: thresholds at the sum of an image, and beside it."""
    model = packed_model(mlp(1, 6), (1, 300, 300), flips="none")
    pixels = np.full((2, 1, 300, 300), 255, np.uint8)
    pixels[1] = pixels_for(model, 1)[0]
    layer = model.layers[0]
    weight = np.ones((6, 90_000), bool)
    weight[:, :50] = np.random.default_rng(0).random((6, 50)) < 0.5
    s = pixels.reshape(2, -1).astype(np.int64) @ np.where(weight, 1, -1).T
    assert (s[0] > 2**24).all()
    for beside, expected in ((-1, True), (0, True), (1, False)):
        t = (s[0] + beside)[None, None].astype(np.int32)
        changed = PackedLayer(layer.shape, pack(weight[None]), t, layer.flip, *np.zeros((3, 0)))
        exact = PackedModel(model.spec, (changed, model.layers[1]), model.input, {})
        fast = PackedNetwork(exact, first)
        assert_same(fast, pixels)
        assert (fast.trace(pixels)[0][0][0] == expected).all()


def bit(words, j):
    return int(words[j // 32]) >> (j % 32) & 1


def weight(layer, n, j):
    return 1 if bit(layer.weight[0, n], j) else -1


def asks(layer, n, s, t):
    """Whether a sum gives bit 1."""
    return s <= t if layer.flip[n] else s >= t


def convolved(layer, image, of_class):
    """Sums of one image, {(row, column, channel): integer}, at each pixel and tap."""
    height, width = layer.shape.size
    channels = layer.shape.inputs
    sums, bits = {}, {}
    for y in range(height):
        for x in range(width):
            for n in range(layer.shape.outputs):
                s = 0
                for i in range(3):
                    for j in range(3):
                        for c in range(channels):
                            # What lies outside the image is zero.
                            value = image.get((y + i - 1, x + j - 1, c), 0)
                            s += value * weight(layer, n, (3 * i + j) * channels + c)
                sums[y, x, n] = s
                t = layer.threshold[0, of_class[y, x] if layer.threshold.shape[1] > 1 else 0, n]
                bits[y, x, n] = asks(layer, n, s, t)
    return sums, bits


def pooled(layer, sums):
    """Bits of the largest sum of each 2x2 window; an odd last row or column is left out."""
    height, width = layer.shape.size
    bits = {}
    for y in range(height // 2):
        for x in range(width // 2):
            for n in range(layer.shape.outputs):
                s = max(sums[2 * y + i, 2 * x + j, n] for i in (0, 1) for j in (0, 1))
                bits[y, x, n] = asks(layer, n, s, layer.threshold[0, 0, n])
    return bits


def test_the_definition_is_a_convolution_with_zeros_around_pooling_and_products():
    model = packed_model(convnet([3, 5], [6]), (2, 5, 7), classes=4, seed=3)
    conv1, conv2, fc1, fc2 = model.layers
    of_class, _ = borders(5, 7)
    assert conv1.threshold.shape == (1, 9, 3)
    slow = ReferenceNetwork(model)
    pixels = pixels_for(model, 3)
    hidden, scores = slow.trace(pixels)
    for k, each in enumerate(pixels):
        image = {(y, x, c): int(v) for (c, y, x), v in np.ndenumerate(each)}
        _, bits = convolved(conv1, image, of_class)
        check(hidden[0][k], bits)
        image = {at: 1 if on else -1 for at, on in bits.items()}
        sums, _ = convolved(conv2, image, of_class)
        bits = pooled(conv2, sums)
        check(hidden[1][k], bits)
        assert conv2.shape.pooled == (2, 3)
        # Row by row, pixel by pixel, channels innermost.
        flat = [1 if bits[y, x, n] else -1 for y in range(2) for x in range(3) for n in range(5)]
        sums = [sum(v * weight(fc1, n, j) for j, v in enumerate(flat)) for n in range(6)]
        fc1_bits = [asks(fc1, n, s, fc1.threshold[0, 0, n]) for n, s in enumerate(sums)]
        assert hidden[2][k].tolist() == fc1_bits
        flat = [1 if on else -1 for on in fc1_bits]
        for n in range(4):
            s = sum(v * weight(fc2, n, j) for j, v in enumerate(flat))
            assert scores[k, n] == (s - fc2.mean[n]) * fc2.scale[n] + fc2.shift[n]


def check(plane, bits):
    assert plane.size == len(bits)
    for at, on in bits.items():
        assert plane[at] == on, at


def test_the_definition_of_a_fully_connected_network():
    model = packed_model(mlp(1, 5), (2, 3, 3), classes=3, levels=16)
    fc1, fc2 = model.layers
    slow = ReferenceNetwork(model)
    pixels = pixels_for(model, 4)
    hidden, scores = slow.trace(pixels)
    for k, each in enumerate(pixels):
        flat = [int(v) for v in each.ravel()]  # channel by channel, as the pixels lie
        sums = [sum(v * weight(fc1, n, j) for j, v in enumerate(flat)) for n in range(5)]
        bits = [asks(fc1, n, s, fc1.threshold[0, 0, n]) for n, s in enumerate(sums)]
        assert hidden[0][k].tolist() == bits
        flat = [1 if on else -1 for on in bits]
        for n in range(3):
            s = sum(v * weight(fc2, n, j) for j, v in enumerate(flat))
            assert scores[k, n] == (s - fc2.mean[n]) * fc2.scale[n] + fc2.shift[n]


@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_each_class_of_border_is_the_taps_that_lie_on_the_image(size):
    height, width = size
    classes, taps = borders(height, width)
    assert classes.shape == size
    assert taps.shape[1:] == (3, 3)
    used = set()
    for (y, x), border_class in np.ndenumerate(classes):
        for i in range(3):
            for j in range(3):
                on = 0 <= y + i - 1 < height and 0 <= x + j - 1 < width
                assert taps[border_class, i, j] == on, (y, x, i, j)
        used.add(int(border_class))
    assert used == set(range(len(taps)))
    assert len({each.tobytes() for each in taps}) == len(taps)


@st.composite
def networks(draw):
    """An architecture, an image it can be of, and how its model is drawn."""
    image = tuple(draw(st.integers(1, largest)) for largest in (4, 9, 9))
    number = draw(st.integers(0, 4))
    # Each second convolution halves the image, which must not vanish.
    number = min(number, 2 * int(math.log2(min(image[1:]))) + 1)
    sizes = st.integers(1, 70)
    if number == 0:
        arch = mlp(draw(st.integers(1, 3)), draw(st.integers(1, 200)))
    else:
        fc = draw(st.lists(sizes, max_size=2))
        arch = convnet([draw(sizes) for _ in range(number)], fc)
    how = {
        "classes": draw(st.integers(1, 20)),
        "levels": draw(st.sampled_from([1, 15, 16, 255])),
        "seed": draw(st.integers(0, 2**16)),
        "flips": draw(st.sampled_from(["some", "all", "none"])),
        "thresholds": draw(st.sampled_from(["near", "beyond"])),
    }
    return arch, image, how


@settings(deadline=None, max_examples=15, database=None)
@given(networks(), st.sampled_from(FIRSTS), st.integers(0, 6))
def test_any_small_network_is_that_of_the_definition(drawn, first, n):
    arch, image, how = drawn
    model = packed_model(arch, image, **how)
    assert_same(PackedNetwork(model, first), pixels_for(model, n, seed=how["seed"]))
