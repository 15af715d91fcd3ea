"""Packed networks by the CUDA kernels, run on the processor: the definition's bits and scores."""

import pytest
from emulated_device import EmulatedDevice
from packed_networks import NETWORKS, assert_same, made, pixels_for

from bnnrun.config import FirstLayer
from bnnrun.runtime import cuda
from bnnrun.runtime.cuda import CudaNetwork

TURING, AMPERE, HOPPER = (7, 5), (8, 0), (9, 0)


@pytest.mark.parametrize(
    ("capability", "first"),
    [(TURING, FirstLayer.planes), (AMPERE, FirstLayer.bytes), (HOPPER, FirstLayer.bytes)],
    ids=["portable, planes", "mma, bytes", "wgmma, bytes"],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_bit_and_every_score_is_that_of_the_definition(name, capability, first, monkeypatch):
    monkeypatch.setattr(cuda, "MAX_CHUNK", 5)
    model = made(*NETWORKS[name], levels=16 if capability == TURING else 255, seed=1)
    network = CudaNetwork(model, EmulatedDevice(capability), first)
    # In this order: what a larger batch left in the buffers must not be seen.
    for n in (5, 2, 0):
        assert_same(network, pixels_for(model, n, seed=n))


@pytest.mark.parametrize("flips", ["all", "none"])
@pytest.mark.parametrize("thresholds", ["near", "beyond"])
def test_flipped_channels_and_constant_ones(flips, thresholds):
    for name in ("five inputs", "odd, pooled to one"):
        model = made(*NETWORKS[name], flips=flips, thresholds=thresholds, seed=5)
        assert_same(CudaNetwork(model, EmulatedDevice(AMPERE)), pixels_for(model, 3))


def test_a_batch_past_the_chunk_goes_through_in_parts(monkeypatch):
    monkeypatch.setattr(cuda, "MAX_CHUNK", 3)
    model = made(*NETWORKS["five inputs"])
    network = CudaNetwork(model, EmulatedDevice(TURING))
    assert network.chunk == 3
    assert_same(network, pixels_for(model, 8))
