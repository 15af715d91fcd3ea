"""Random bits as a function of where they are used: known values, uniform, the same everywhere."""

import itertools

import numpy as np
import pytest
import torch
from networks import network

from bnnrun.engine.cpu import sampling as cpu
from bnnrun.nn.engine import Engine
from bnnrun.nn.quantizers import stochastic_sign
from bnnrun.nn.sampling import (
    FACTOR_1,
    FACTOR_2,
    GOLDEN,
    Use,
    dropped_below,
    extend,
    layer_key,
    random_bits,
    step_key,
)

SHAPE = torch.Size([3, 5, 4, 6])


def by_definition(key: int, n: int) -> int:
    """h(key, n) in Python's integers."""
    z = (key + (n + 1) * GOLDEN) % 2**64
    z = (z ^ (z >> 30)) * FACTOR_1 % 2**64
    z = (z ^ (z >> 27)) * FACTOR_2 % 2**64
    return z ^ (z >> 31)


def test_the_finalizer_is_splitmix64s():
    """The published generator's first outputs from the state 1234567."""
    values = [extend(torch.tensor(1234567), n).item() % 2**64 for n in range(3)]
    assert values == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
@pytest.mark.parametrize("use", Use)
def test_keys_and_bits_are_the_definitions(seed, use):
    key = 0
    for n in (seed, 7, 2, use):
        key = by_definition(key, n)
    sampled_key = layer_key(step_key(seed, 7), 2, use)
    assert sampled_key.item() % 2**64 == key
    expected = [by_definition(key, i) >> 32 for i in range(SHAPE.numel())]
    assert random_bits(sampled_key, SHAPE).flatten().tolist() == expected


def test_bits_differ_by_seed_step_layer_and_use():
    places = itertools.product(range(3), range(3), range(3), Use)
    keys = [layer_key(step_key(seed, t), layer, use).item() for seed, t, layer, use in places]
    assert len(set(keys)) == 81


def test_bits_are_uniform_and_neighbours_independent():
    """Mean and correlations of 2^20 of them, within five deviations."""
    for key in (step_key(0, 1), step_key(0, 2), step_key(1, 1)):
        u = random_bits(key, torch.Size([2**20])).double() / 2**32 - 0.5
        assert abs(u.mean()) < 5 * (1 / 12 / 2**20) ** 0.5
        for shift in (1, 64, 1024):
            assert abs((u[shift:] * u[:-shift]).mean()) < 5 / 12 / 2**10
    same = random_bits(step_key(0, 1), torch.Size([2**20])).double() / 2**32 - 0.5
    other = random_bits(step_key(0, 2), torch.Size([2**20])).double() / 2**32 - 0.5
    assert abs((same * other).mean()) < 5 / 12 / 2**10


def orders(t):
    """The same tensor, however it may lie in memory."""
    return t, t.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.999])
def test_the_processors_dropout_is_the_references(share):
    """Elements are numbered channel by channel, in whatever order they lie."""
    net = network("arch.width=40", f"arch.dropout_hidden={share}")
    block = net.blocks[1]
    engine = Engine(net, seed=3)
    engine.step_key = step_key(3, 5)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    for a in (*orders(x), x.flatten(1), x.transpose(2, 3)):
        ours, theirs = (a.detach().clone().requires_grad_() for _ in range(2))
        expected = engine.dropout(block, theirs)
        actual = cpu.dropout(ours, share, layer_key(engine.step_key, 1, Use.dropout))
        assert torch.equal(actual, expected)
        g = torch.randn_like(x).view(a.shape)
        actual.backward(g)
        expected.backward(g)
        assert torch.equal(ours.grad, theirs.grad)


def test_the_processors_sampled_signs_are_the_references():
    r = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    r.view(-1)[:4] = torch.tensor([1.0, -1.0, 0.0, -0.0])
    key = layer_key(step_key(0, 1), 0, Use.weights)
    for w in orders(r):
        actual = cpu.sample_into(w, key, torch.empty_like(w))
        assert torch.equal(actual, stochastic_sign(w, random_bits(key, w.shape)))


def test_dropout_drops_its_share():
    net = network("arch.width=1000", "arch.dropout_hidden=0.2")
    engine = Engine(net)
    keep_mask = engine.dropout(net.blocks[1], torch.ones(300, 1000)) > 0
    assert keep_mask.double().mean().item() == pytest.approx(0.8, abs=0.004)  # five deviations
    # Neither rows nor columns are sampled alike.
    assert keep_mask.double().mean(0).std().item() == pytest.approx((0.16 / 300) ** 0.5, rel=0.15)
    assert keep_mask.double().mean(1).std().item() == pytest.approx((0.16 / 1000) ** 0.5, rel=0.15)


def test_what_is_dropped_depends_on_nothing_else_than_where_it_stands():
    """Part of a minibatch from its beginning on has the same mask."""
    key = step_key(0, 1)
    batch = random_bits(key, torch.Size([9, 2, 3, 4])) < dropped_below(0.5)
    assert torch.equal(random_bits(key, torch.Size([4, 2, 3, 4])) < dropped_below(0.5), batch[:4])
    assert np.array_equal(batch[0].flatten(), random_bits(key, torch.Size([24])) < 2**31)
