"""The paper's networks and the reference engine, against plain NumPy."""

from itertools import chain

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command import configure
from networks import ODD, SPEC, images, labels_of, network, randomize_norms, typed

from bnnrun.architecture import plan
from bnnrun.config import Preprocessing
from bnnrun.data import describe
from bnnrun.nn.engine import Engine
from bnnrun.nn.losses import squared_hinge
from bnnrun.nn.network import Network
from bnnrun.nn.norm import BatchNorm
from bnnrun.nn.optim import make_optimizer
from bnnrun.nn.quantizers import sign


@pytest.mark.parametrize("arch", ["mlp", "convnet"])
def test_the_gradient_of_weights_is_that_of_their_signs_even_at_one(arch):
    """g_W = g_{W^b}: the same network with ±1 for weights has the same gradient."""
    net = network(f"arch={arch}", *(["arch.fc=[40]"] if arch == "convnet" else []))
    block = net.blocks[1]
    with torch.no_grad():
        first = (0,) * (block.product.weight.dim() - 1)
        block.product.weight[first][:3] = torch.tensor([1.0, -1.0, 0.0])
    shape = (20, block.layer.inputs, 8, 8) if arch == "convnet" else (20, block.layer.inputs)
    a = sign(torch.randn(shape)).requires_grad_()
    s = Engine(net).product(block, a)
    g = torch.randn_like(s)
    s.backward(g)
    w = sign(block.product.weight.detach()).requires_grad_()
    b = a.detach().clone().requires_grad_()
    by_hand = F.conv2d(b, w, padding=1) if arch == "convnet" else b @ w.t()
    by_hand.backward(g)
    assert torch.equal(s.detach(), by_hand.detach())
    torch.testing.assert_close(block.product.weight.grad, w.grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-3)
    assert block.product.weight.grad[first][:3].abs().min() > 0


def test_squared_hinge_is_the_mean_over_images_and_classes():
    y = np.array([[0.5, -2.0, 1.5], [1.0, 0.0, -1.0]])
    t = np.array([[1, -1, -1], [-1, 1, -1]])
    expected = np.maximum(0, 1 - t * y) ** 2
    loss = squared_hinge(torch.from_numpy(y), torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(expected.mean())


def test_batch_norm_normalizes_and_averages_in_lasagnes_form():
    """Biased variance; the running value is the average of the inverse deviation, from 1."""
    rng = np.random.default_rng(0)
    norm = BatchNorm(5, 1e-4, 0.1)
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


# The paper's networks: weights, MACs, c of each layer, activations an image behind Sign.
PAPER = {
    "mnist": (36_806_656, 36_806_656, [57.04, 73.90, 73.90, 52.32], 12_288),
    "mnist arch.width=2048": (10_014_720, 10_014_720, [43.45, 52.26, 52.26, 37.04], 6_144),
    "cifar10": (
        14_022_016,
        616_966_144,
        [28.04, 39.19, 48.00, 55.43, 67.88, 78.38, 78.38, 36.95, 26.26],
        288_768,
    ),
    "svhn": (
        6_397_632,
        158_017_536,
        [20.05, 27.71, 33.94, 39.19, 48.00, 55.43, 58.42, 36.95, 26.26],
        None,
    ),
}


@pytest.mark.parametrize("words", PAPER)
def test_the_papers_networks_layer_by_layer(words):
    typed = configure("train", *f"dataset={words}".split())
    layers = plan(typed.arch, describe(typed.dataset))
    weights, macs, c, activations = PAPER[words]
    assert sum(layer.weights for layer in layers) == weights
    assert sum(layer.macs for layer in layers) == macs
    assert [round(layer.c, 2) for layer in layers] == c
    assert [layer.last for layer in layers] == [False] * (len(layers) - 1) + [True]
    if activations is not None:
        assert sum(layer.activations for layer in layers[:-1]) == activations


@pytest.mark.parametrize(
    ("words", "trainable"),
    # 36,843,550 - 12,298, 14,033,566 - 3,850 and 6,406,494 - 2,954 biases.
    [("mnist", 36_831_252), ("cifar10", 14_029_716), ("svhn", 6_403_540)],
)
def test_trainable_parameters_are_the_papers_less_the_biases(words, trainable):
    typed = configure("train", f"dataset={words}")
    layers = plan(typed.arch, describe(typed.dataset))
    assert sum(layer.weights + layer.norm_parameters for layer in layers) == trainable


def test_dropout_stands_where_the_paper_has_it():
    typed = configure("train", "dataset=mnist")
    shown = [layer.dropout for layer in plan(typed.arch, describe(typed.dataset))]
    assert shown == [0.2, 0.5, 0.5, 0.5]


def test_pooling_stands_before_batch_norm_and_sign_behind_each_second_convolution():
    typed = configure("train", "dataset=cifar10")
    layers = plan(typed.arch, describe(typed.dataset))
    assert [layer.pool for layer in layers] == [False, True] * 3 + [False] * 3
    assert [layer.size for layer in layers[:6]] == [(32, 32)] * 2 + [(16, 16)] * 2 + [(8, 8)] * 2


def test_initial_weights_are_uniform_between_minus_one_and_one():
    w = network("arch.width=300").blocks[1].product.weight.detach().numpy()
    assert -1 <= w.min() < -0.99
    assert 0.99 < w.max() <= 1
    assert abs(w.mean()) < 0.01
    assert w.std() == pytest.approx(1 / np.sqrt(3), abs=0.01)


def convolve(a, w):
    """Sums over the taps inside the image, (B, C, H, W) and (N, C, 3, 3), by the definition."""
    b, _, height, width = a.shape
    s = np.zeros((b, len(w), height, width), a.dtype)
    for y, x, i, j in np.ndindex(height, width, 3, 3):
        v, u = y + i - 1, x + j - 1
        if 0 <= v < height and 0 <= u < width:
            s[:, :, y, x] += a[:, :, v, u] @ w[:, :, i, j].T
    return s


def max_pool(s):
    b, n, height, width = s.shape
    s = s[:, :, : height // 2 * 2, : width // 2 * 2]
    return s.reshape(b, n, height // 2, 2, width // 2, 2).max((3, 5))


def evaluate_by_hand(net: Network, x: torch.Tensor) -> np.ndarray:
    """The whole evaluation again in NumPy: integer sums, float64 batch norm."""
    p, q, d = (t.item() for t in (net.input.p, net.input.q, net.input.d))
    a = x.numpy().astype(np.int64)
    for i, block in enumerate(net.blocks):
        w = np.where(block.product.weight.detach().numpy() >= 0, 1, -1).astype(np.int64)
        if not block.layer.is_conv:
            a = a.reshape(len(a), -1)
        product = convolve if block.layer.is_conv else lambda a, w: a @ w.T
        s = product(a, w).astype(float)
        if i == 0:
            s = (p * s + q * product(np.ones_like(a[:1]), w)) / d
        if block.layer.pool:
            s = max_pool(s)
        norm = block.norm
        shape = (1, -1, *[1] * (s.ndim - 2))
        mean, gamma, inv_std, beta = (
            t.detach().double().numpy().reshape(shape)
            for t in (norm.mean, norm.gamma, norm.inv_std, norm.beta)
        )
        y = (s - mean) * (gamma * inv_std) + beta
        a = np.where(y >= 0, 1, -1)
    return y


@pytest.mark.parametrize("preprocessing", [Preprocessing.scale, Preprocessing.standardize])
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["arch.width=40"], SPEC),
        (["arch=convnet", "arch.channels=[8,12,5,6]", "arch.fc=[20]"], SPEC),
        (["arch=convnet", "arch.channels=[5,7]", "arch.fc=[9]"], ODD),
    ],
    ids=["mlp", "convnet", "odd convnet"],
)
def test_evaluation_is_integer_sums_and_float64_batch_norm(words, kind, preprocessing):
    """Equal to the last bit, borders and odd sizes included."""
    net, x = network(*words, kind=kind, preprocessing=preprocessing), images(12, kind=kind)
    engine = Engine(randomize_norms(net))
    for _ in range(3):
        engine.forward(images(50, seed=1, kind=kind))  # the running statistics are not 0 and 1
    expected = evaluate_by_hand(net, x)
    np.testing.assert_array_equal(engine.evaluate(x)[0].numpy(), expected)
    np.testing.assert_array_equal([*engine.trace(x)][-1].numpy(), expected)


def test_scaled_input_is_two_x_over_levels_less_one():
    x = images(4)
    np.testing.assert_allclose(network().input(x).numpy(), 2 * x.numpy() / 16 - 1, rtol=1e-6)


def test_whitened_input_takes_part_in_training_and_evaluation():
    net, x = network(preprocessing=Preprocessing.zca), images(10)
    scale = net.input
    flat = (2 * x.numpy().reshape(10, -1) / 16 - 1) - scale.zca_mean.numpy()
    expected = flat @ scale.zca_matrix.numpy().astype(float)
    np.testing.assert_allclose(scale(x).numpy().reshape(10, -1), expected, atol=1e-5)
    sums = Engine(net).evaluate_product(net.blocks[0], x).detach().numpy()
    w = np.where(net.blocks[0].product.weight.detach().numpy() >= 0, 1.0, -1.0)
    np.testing.assert_allclose(sums, expected @ w.T, atol=1e-4)
    assert torch.isfinite(Engine(net).evaluate(x)[0]).all()


def test_the_saturated_share_is_that_of_each_hidden_layer():
    net = network()
    with torch.no_grad():
        for block, beta in zip(net.blocks, (0.0, 50.0, 0.0, 0.0), strict=True):
            block.norm.gamma.fill_(1e-3)
            block.norm.beta.fill_(beta)
    _, saturated = Engine(net).evaluate(images(20))
    assert saturated == [0, 1, 0]


def test_evaluation_does_not_depend_on_the_batch():
    engine, x = Engine(network("arch.width=500")), images(33)
    at_once, _ = engine.evaluate(x)
    parts = torch.cat([engine.evaluate(x[i : i + 7])[0] for i in range(0, 33, 7)])
    assert torch.equal(at_once, parts)


def test_hidden_pre_activations_in_training_are_exact_integers():
    engine = Engine(network("arch.width=40", "arch.dropout_hidden=0"))
    a = engine.network.input(images(20))
    for block in engine.network.blocks:
        s = engine.product(block, a).detach()
        if block.index:
            assert torch.equal(s, s.round())
            assert set((s % 2).unique().tolist()) == {0.0}  # K = 40 is even, and so is each sum
        a = engine.norm_act(block, s)


def test_float_networks_have_relu_and_glorot_weights():
    net = network("binarization=none", "arch.width=300")
    w = net.blocks[1].product.weight.detach()
    bound = np.sqrt(6 / 600)
    assert w.abs().max().item() <= bound
    assert w.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    hidden = Engine(net).block(net.blocks[0], torch.randn(10, 64))
    assert hidden.min().item() == 0
    assert not hidden.equal(hidden.round())


def alg1(net, x, labels, lr):
    """One step of Alg. 1 written out in NumPy's terms, float64: (loss, new weights and norms).

    Gradient descent; the gradients are those of the box, layer by layer, not autograd's.
    """
    inputs, normed, sizes = [], [], [block.layer.outputs for block in net.blocks]
    a = net.input(x, torch.float64).flatten(1).numpy()
    numbers = [
        [t.detach().double().numpy() for t in (b.product.weight, b.norm.gamma, b.norm.beta)]
        for b in net.blocks
    ]
    for i, (w, gamma, beta) in enumerate(numbers):
        inputs.append(a)
        s = a @ np.where(w >= 0, 1, -1).T
        inv = 1 / np.sqrt(s.var(0) + net.blocks[i].norm.eps)
        hat = (s - s.mean(0)) * inv
        y = hat * gamma + beta
        normed.append((hat, inv, y))
        a = np.where(y >= 0, 1.0, -1.0)
    t = np.where(np.arange(sizes[-1]) == labels.numpy()[:, None], 1, -1)
    loss = np.mean(np.maximum(0, 1 - t * y) ** 2)
    g = -2 * t * np.maximum(0, 1 - t * y) / y.size
    for i in reversed(range(len(numbers))):
        w, gamma, beta = numbers[i]
        hat, inv, y = normed[i]
        g = g if i == len(numbers) - 1 else g * (np.abs(y) <= 1)
        g_gamma, g_beta = (g * hat).sum(0), g.sum(0)
        g_s = gamma * inv * (g - g.mean(0) - hat * (g * hat).mean(0))
        g_w, g = g_s.T @ inputs[i], g_s @ np.where(w >= 0, 1, -1)
        w -= lr * net.blocks[i].layer.c * g_w
        np.clip(w, -1, 1, out=w)
        gamma -= lr * g_gamma
        beta -= lr * g_beta
    return loss, numbers


def test_a_step_is_algorithm_1():
    """Forward, backward and update as printed, against the box written out in float64."""
    net = randomize_norms(network("arch.width=20", "arch.dropout_hidden=0"))
    config = typed("optimizer=sgd", "optimizer.momentum=0").optimizer
    engine = Engine(net, make_optimizer(net, config))
    engine.optimizer.param_groups[0]["lr"] = 0.3
    x = images(30)
    loss, expected = alg1(net, x, labels_of(x, net), 0.3)
    before = [p.detach().clone() for p in net.parameters()]
    assert engine.step(x, labels_of(x, net)).item() == pytest.approx(loss, rel=1e-5)
    actual = [(b.product.weight, b.norm.gamma, b.norm.beta) for b in net.blocks]
    for ours, theirs in zip(chain(*actual), chain(*expected), strict=True):
        # Gradients are sums of some hundred numbers, rounded to float32: 1e-5 of the largest.
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-4, atol=2e-5)
    assert any(not torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_dropout_rescales_what_it_keeps_and_passes_its_gradient():
    net = network("arch.width=40", "arch.dropout_hidden=0.5")
    a = torch.ones(10, 40, requires_grad=True)
    dropped = Engine(net).dropout(net.blocks[1], a)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    dropped.backward(torch.full_like(a, 3.0))
    assert torch.equal(a.grad, 3 * dropped.detach())
