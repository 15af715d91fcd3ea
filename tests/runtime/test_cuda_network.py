"""Packed networks by the CUDA kernels, run on the processor: the definition's bits and scores."""

import pytest
from emulated_device import EmulatedDevice
from packed_networks import NETWORKS, assert_same, packed_model, pixels_for

from bnnrun.config import FirstLayer
from bnnrun.runtime import cuda
from bnnrun.runtime.cuda import CudaNetwork

TURING, AMPERE, HOPPER = (7, 5), (8, 0), (9, 0)
MORE_BITS = [(1, 2), (2, 1), (2, 2), (3, 4)]  # of weights and of activations
# Of the layers of "13x11".
WEIGHT_BITS, ACTIVATION_BITS = [3, 2, 1, 3, 1, 4, 2, 1], [2, 1, 3, 1, 1, 2, 1]


@pytest.mark.parametrize(
    ("capability", "first"),
    [(TURING, FirstLayer.planes), (AMPERE, FirstLayer.bytes), (HOPPER, FirstLayer.bytes)],
    ids=["portable, planes", "mma, bytes", "wgmma, bytes"],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_bit_and_every_score_is_that_of_the_definition(name, capability, first, monkeypatch):
    monkeypatch.setattr(cuda, "MAX_CHUNK", 5)
    model = packed_model(*NETWORKS[name], levels=16 if capability == TURING else 255, seed=1)
    network = CudaNetwork(model, EmulatedDevice(capability), first)
    # In this order: what a larger batch left in the buffers must not be seen.
    for n in (5, 2, 0):
        assert_same(network, pixels_for(model, n, seed=n))


@pytest.mark.parametrize("bits", MORE_BITS, ids=str)
@pytest.mark.parametrize("name", ["hundred", "odd, pooled to one"])
def test_every_code_of_more_bits_is_that_of_the_definition(name, bits, monkeypatch):
    monkeypatch.setattr(cuda, "MAX_CHUNK", 5)
    weight_bits, activation_bits = bits
    for flips, thresholds in (("some", "near"), ("all", "beyond")):
        model = packed_model(
            *NETWORKS[name], weight_bits=weight_bits, activation_bits=activation_bits,
            flips=flips, thresholds=thresholds, seed=1,
        )  # fmt: skip
        network = CudaNetwork(model, EmulatedDevice(AMPERE))
        for n in (7, 2):
            assert_same(network, pixels_for(model, n, seed=n))


@pytest.mark.parametrize(
    ("capability", "first"), [(TURING, FirstLayer.planes), (HOPPER, FirstLayer.bytes)], ids=str
)
def test_each_layer_may_have_its_own_bits(capability, first):
    model = packed_model(
        *NETWORKS["13x11"], weight_bits=WEIGHT_BITS, activation_bits=ACTIVATION_BITS
    )
    network = CudaNetwork(model, EmulatedDevice(capability), first)
    assert_same(network, pixels_for(model, 3))


@pytest.mark.parametrize("name", ["hundred", "13x11"])
def test_layers_of_one_bit_are_one_launch_each(name):
    device = EmulatedDevice(HOPPER)
    model = packed_model(*NETWORKS[name])
    CudaNetwork(model, device).scores(pixels_for(model, 2))
    assert len(device.launches) == len(model.layers)
    assert not [d for each in device.launches for d, _ in each.defines if d.endswith("_BITS")]


def test_a_chunk_s_products_have_a_bound(monkeypatch):
    monkeypatch.setattr(cuda, "MAX_PRODUCTS", 4 * 3 * 100 * 6)
    model = packed_model(*NETWORKS["hundred"], weight_bits=3, activation_bits=4)
    network = CudaNetwork(model, EmulatedDevice(AMPERE))
    assert (network.chunk, network.products.size) == (6, 4 * 3 * 100 * 6)


@pytest.mark.parametrize("flips", ["all", "none"])
@pytest.mark.parametrize("thresholds", ["near", "beyond"])
def test_flipped_channels_and_constant_ones(flips, thresholds):
    for name in ("five inputs", "odd, pooled to one"):
        model = packed_model(*NETWORKS[name], flips=flips, thresholds=thresholds, seed=5)
        assert_same(CudaNetwork(model, EmulatedDevice(AMPERE)), pixels_for(model, 3))


def test_a_batch_past_the_chunk_goes_through_in_parts(monkeypatch):
    monkeypatch.setattr(cuda, "MAX_CHUNK", 3)
    model = packed_model(*NETWORKS["five inputs"])
    network = CudaNetwork(model, EmulatedDevice(TURING))
    assert network.chunk == 3
    assert_same(network, pixels_for(model, 8))
