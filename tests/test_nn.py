"""Sign, its estimators, the layers, batch norm and the loss, against plain NumPy."""

import numpy as np
import pytest
import torch
from command import configure

from bnnrun.architecture import plan
from bnnrun.config import NormConfig
from bnnrun.data.dataset import Kind
from bnnrun.nn.binarize import SignActivation, SignWeight, sign
from bnnrun.nn.losses import squared_hinge
from bnnrun.nn.models import Network
from bnnrun.nn.norm import BatchNorm

KIND = Kind(image_shape=(1, 8, 8), classes=tuple("0123456789"), levels=16)


def network(*words: str, seed: int = 0) -> Network:
    typed = configure("train", "dataset=digits", "arch.width=40", *words)
    torch.manual_seed(seed)
    return Network(typed.arch, typed.binarization, typed.norm, KIND)


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 17, (n, *KIND.image_shape)).astype(np.uint8)
    )


def test_sign_of_both_zeros_is_plus_one():
    r = torch.tensor([-1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0])
    assert sign(r).tolist() == [-1, -1, 1, 1, 1, 1]


def test_the_gate_of_activations_is_inclusive():
    r = torch.tensor([-1.0001, -1.0, -0.5, 0.0, 1.0, 1.0001], requires_grad=True)
    q = SignActivation.apply(r)
    q.backward(torch.full_like(r, 3.0))
    assert q.tolist() == [-1, -1, -1, 1, 1, 1]
    assert r.grad.tolist() == [0, 3, 3, 3, 3, 0]


def test_a_closed_gate_stops_an_infinite_gradient():
    r = torch.tensor([2.0], requires_grad=True)
    SignActivation.apply(r).backward(torch.tensor([float("inf")]))
    assert r.grad.tolist() == [0]


def test_the_gradient_of_weights_passes_unchanged_even_at_one():
    w = torch.tensor([-1.0, -0.2, 0.0, 1.0], requires_grad=True)
    SignWeight.apply(w).backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert w.grad.tolist() == [1, 2, 3, 4]


def test_squared_hinge_is_the_mean_over_images_and_classes():
    y = np.array([[0.5, -2.0, 1.5], [1.0, 0.0, -1.0]])
    t = np.array([[1, -1, -1], [-1, 1, -1]])
    expected = np.maximum(0, 1 - t * y) ** 2
    loss = squared_hinge(torch.from_numpy(y), torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(expected.mean())


def test_batch_norm_normalizes_and_averages_in_lasagnes_form():
    """Biased variance; the running value is the average of the inverse deviation, from 1."""
    rng = np.random.default_rng(0)
    norm = BatchNorm(5, NormConfig(name="batch", eps=1e-4, momentum=0.1))
    mean, inv_std = np.zeros(5), np.ones(5)
    with torch.no_grad():
        norm.gamma.copy_(torch.from_numpy(rng.normal(size=5)))
        norm.beta.copy_(torch.from_numpy(rng.normal(size=5)))
    gamma, beta = (p.detach().double().numpy() for p in (norm.gamma, norm.beta))
    for _ in range(3):
        s = rng.normal(3, 7, (20, 5)).astype(np.float32)
        mu, inv = s.mean(0, dtype=float), 1 / np.sqrt(s.var(0, dtype=float) + 1e-4)
        y = norm(torch.from_numpy(s)).detach().numpy()
        np.testing.assert_allclose(y, (s - mu) * inv * gamma + beta, rtol=1e-4, atol=1e-5)
        mean, inv_std = 0.9 * mean + 0.1 * mu, 0.9 * inv_std + 0.1 * inv
    np.testing.assert_allclose(norm.mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(norm.inv_std.numpy(), inv_std, rtol=1e-5)
    evaluated = norm.evaluate(torch.from_numpy(s))
    assert evaluated.dtype == torch.float64
    np.testing.assert_allclose(
        evaluated.detach().numpy(), (s - mean) * inv_std * gamma + beta, rtol=1e-4, atol=1e-4
    )


def test_the_papers_c_of_each_layer():
    """paper.md 2.2: 57.04, 73.90, 73.90, 52.32."""
    typed = configure("train", "dataset=mnist")
    layers = plan(typed.arch, Kind((1, 28, 28), tuple("0123456789"), 255))
    assert [round(layer.c, 2) for layer in layers] == [57.04, 73.90, 73.90, 52.32]
    assert [layer.dropout for layer in layers] == [0.2, 0.5, 0.5, 0.5]
    assert [layer.last for layer in layers] == [False, False, False, True]


def test_initial_weights_are_uniform_between_minus_one_and_one():
    w = network("arch.width=300").blocks[1].product.weight.detach().numpy()
    assert -1 <= w.min() < -0.99
    assert 0.99 < w.max() <= 1
    assert abs(w.mean()) < 0.01
    assert w.std() == pytest.approx(1 / np.sqrt(3), abs=0.01)


def test_evaluation_is_integer_sums_and_float64_batch_norm():
    """The whole network again in NumPy integers: equal to the last bit."""
    net, x = network(), images(30)
    for _ in range(3):
        net(images(50, seed=1))  # so that the running statistics are not 0 and 1
    a, divisor = 2 * x.numpy().reshape(30, -1).astype(np.int64) - 16, 16
    for block in net.blocks:
        w = np.where(block.product.weight.detach().numpy() >= 0, 1, -1).astype(np.int64)
        norm = block.norm
        mean, gamma, inv_std, beta = (
            t.detach().double().numpy() for t in (norm.mean, norm.gamma, norm.inv_std, norm.beta)
        )
        y = ((a @ w.T) / divisor - mean) * (gamma * inv_std) + beta
        a, divisor = np.where(y >= 0, 1, -1), 1
    np.testing.assert_array_equal(net.evaluate(x).numpy(), y)


def test_evaluation_does_not_depend_on_the_batch():
    net, x = network("arch.width=500"), images(33)
    whole = net.evaluate(x)
    parts = torch.cat([net.evaluate(x[i : i + 7]) for i in range(0, 33, 7)])
    assert torch.equal(whole, parts)


def test_hidden_sums_in_training_are_exact_whole_numbers():
    net = network("arch.dropout_hidden=0")
    seen = []
    for block in net.blocks[1:]:
        block.product.register_forward_hook(lambda m, i, o: seen.append(o.detach()))
    net(images(20))
    for s in seen:
        assert torch.equal(s, s.round())
        assert set((s % 2).unique().tolist()) == {0.0}  # K = 40 is even, and so is each sum


def test_float_networks_have_relu_and_glorot_weights():
    net = network("binarization=none", "arch.width=300")
    w = net.blocks[1].product.weight.detach()
    bound = np.sqrt(6 / 600)
    assert w.abs().max().item() <= bound
    assert w.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    hidden = net.blocks[0](torch.randn(10, 64))
    assert hidden.min().item() == 0
    assert not hidden.equal(hidden.round())


def test_dropout_rescales_what_it_keeps():
    block = network("arch.dropout_hidden=0.5").blocks[1]
    seen = []
    block.product.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    block(torch.ones(10, 40))
    assert set(seen[0].unique().tolist()) == {0.0, 2.0}
