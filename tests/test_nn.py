"""Sign, its estimators, the layers, batch norm and the loss, against plain NumPy."""

import numpy as np
import pytest
import torch
from command import configure

from bnnrun.architecture import plan
from bnnrun.config import Preprocessing
from bnnrun.data import describe
from bnnrun.data.dataset import Images, Kind
from bnnrun.data.preprocess import fit
from bnnrun.nn.binarize import SignActivation, sign, stochastic_sign
from bnnrun.nn.dropout import dropout
from bnnrun.nn.losses import squared_hinge
from bnnrun.nn.models import Network
from bnnrun.nn.norm import BatchNorm
from bnnrun.nn.tensor_cores import TensorCoreProduct

KIND = Kind(image_shape=(1, 8, 8), classes=tuple("0123456789"), levels=16)


def network(*words: str, kind: Kind = KIND, preprocessing=Preprocessing.scale) -> Network:
    typed = configure("train", "dataset=digits", "arch=mlp", *words)
    torch.manual_seed(0)
    pixels = images(200, seed=7, kind=kind).numpy()
    given = fit(preprocessing, Images(pixels, np.zeros(200, np.uint8)), kind.levels)
    return Network(typed.arch, typed.binarization, typed.norm, kind, given)


def images(n: int, seed: int = 0, kind: Kind = KIND) -> torch.Tensor:
    drawn = np.random.default_rng(seed).integers(0, kind.levels + 1, (n, *kind.image_shape))
    return torch.from_numpy(drawn.astype(np.uint8))


def test_sign_of_both_zeros_is_plus_one():
    r = torch.tensor([-1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0])
    assert sign(r).tolist() == [-1, -1, 1, 1, 1, 1]


def test_the_gate_of_activations_is_inclusive():
    r = torch.tensor([-1.0001, -1.0, -0.5, 0.0, 1.0, 1.0001], requires_grad=True)
    q = SignActivation.apply(r, False, True)
    q.backward(torch.full_like(r, 3.0))
    assert q.tolist() == [-1, -1, -1, 1, 1, 1]
    assert r.grad.tolist() == [0, 3, 3, 3, 3, 0]


def test_a_closed_gate_stops_an_infinite_gradient():
    r = torch.tensor([2.0], requires_grad=True)
    SignActivation.apply(r, False, True).backward(torch.tensor([float("inf")]))
    assert r.grad.tolist() == [0]


def test_without_the_gate_every_gradient_passes():
    r = torch.tensor([-3.0, 0.5, 3.0], requires_grad=True)
    SignActivation.apply(r, False, False).backward(torch.ones(3))
    assert r.grad.tolist() == [1, 1, 1]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sign_of_every_layout_and_type(memory_format, dtype):
    r = torch.randn(2, 3, 4, 5, dtype=dtype).contiguous(memory_format=memory_format)
    assert torch.equal(sign(r), torch.where(r >= 0, 1.0, -1.0).to(dtype))
    part = r[:, :, 1:3, ::2]
    assert torch.equal(sign(part), torch.where(part >= 0, 1.0, -1.0).to(dtype))


def test_stochastic_sign_has_the_hard_sigmoids_probability():
    """Eq. 2-3: +1 with probability clip((r + 1) / 2, 0, 1); never otherwise at the ends."""
    torch.manual_seed(0)
    r = torch.tensor([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
    drawn = stochastic_sign(r.repeat(40_000, 1))
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    share = (drawn > 0).double().mean(0)
    # 0.25 (1 - 0.25) / 40,000 is 0.0022 squared: four deviations.
    np.testing.assert_allclose(share, [0, 0, 0.25, 0.5, 0.75, 1, 1], atol=0.009)


def test_the_gate_of_a_drawn_sign_is_the_same():
    r = torch.tensor([-1.5, -1.0, 0.3, 1.5], requires_grad=True)
    SignActivation.apply(r, True, True).backward(torch.ones(4))
    assert r.grad.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("arch", ["mlp", "convnet"])
def test_the_gradient_of_weights_is_that_of_their_signs_even_at_one(arch):
    """g_W = g_{W^b}: the same network with ±1 for weights has the same gradient."""
    net = network(f"arch={arch}", "arch.dropout_hidden=0" if arch == "mlp" else "arch.fc=[40]")
    block = net.blocks[1]
    with torch.no_grad():
        first = (0,) * (block.product.weight.dim() - 1)
        block.product.weight[first][:3] = torch.tensor([1.0, -1.0, 0.0])
    shape = (20, block.layer.inputs, 8, 8) if arch == "convnet" else (20, block.layer.inputs)
    a = sign(torch.randn(shape)).requires_grad_()
    s = block.product(a, 1.0)
    g = torch.randn_like(s)
    s.backward(g)
    w = sign(block.product.weight.detach()).requires_grad_()
    b = a.detach().clone().requires_grad_()
    by_hand = block.product.multiply(b, w)
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


ODD = Kind(image_shape=(3, 7, 10), classes=("a", "b", "c"), levels=255)


@pytest.mark.parametrize("preprocessing", [Preprocessing.scale, Preprocessing.standardize])
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["arch.width=40"], KIND),
        (["arch=convnet", "arch.channels=[8,12,5,6]", "arch.fc=[20]"], KIND),
        (["arch=convnet", "arch.channels=[5,7]", "arch.fc=[9]"], ODD),
    ],
    ids=["mlp", "convnet", "odd convnet"],
)
def test_evaluation_is_integer_sums_and_float64_batch_norm(words, kind, preprocessing):
    """Equal to the last bit, borders and odd sizes included."""
    net, x = network(*words, kind=kind, preprocessing=preprocessing), images(12, kind=kind)
    for _ in range(3):
        net(images(50, seed=1, kind=kind))  # so that the running statistics are not 0 and 1
    with torch.no_grad():
        for block in net.blocks:
            block.norm.gamma.copy_(torch.randn_like(block.norm.gamma))
            block.norm.beta.copy_(torch.randn_like(block.norm.beta))
    np.testing.assert_array_equal(net.evaluate(x)[0].numpy(), evaluate_by_hand(net, x))


def test_scaled_input_is_two_x_over_levels_less_one():
    x = images(4)
    np.testing.assert_allclose(network().input(x).numpy(), 2 * x.numpy() / 16 - 1, rtol=1e-6)


def test_whitened_input_takes_part_in_training_and_evaluation():
    net, x = network(preprocessing=Preprocessing.zca), images(10)
    given = net.input
    flat = (2 * x.numpy().reshape(10, -1) / 16 - 1) - given.zca_mean.numpy()
    expected = flat @ given.zca_matrix.numpy().astype(float)
    np.testing.assert_allclose(given(x).numpy().reshape(10, -1), expected, atol=1e-5)
    sums = given.product(x, net.blocks[0].product).numpy()
    w = np.where(net.blocks[0].product.weight.detach().numpy() >= 0, 1.0, -1.0)
    np.testing.assert_allclose(sums, expected @ w.T, atol=1e-4)
    assert torch.isfinite(net.evaluate(x)[0]).all()


def test_the_share_of_closed_gates_is_told_for_each_hidden_layer():
    net = network()
    with torch.no_grad():
        for block, beta in zip(net.blocks, (0.0, 50.0, 0.0, 0.0), strict=True):
            block.norm.gamma.fill_(1e-3)
            block.norm.beta.fill_(beta)
    _, closed = net.evaluate(images(20))
    assert closed[1] == 1
    assert closed[0] == closed[2] == 0
    assert len(closed) == 3


def test_evaluation_does_not_depend_on_the_batch():
    net, x = network("arch.width=500"), images(33)
    whole, _ = net.evaluate(x)
    parts = torch.cat([net.evaluate(x[i : i + 7])[0] for i in range(0, 33, 7)])
    assert torch.equal(whole, parts)


def test_hidden_sums_in_training_are_exact_whole_numbers():
    net = network("arch.width=40", "arch.dropout_hidden=0")
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
    block = network("arch.width=40", "arch.dropout_hidden=0.5").blocks[1]
    seen = []
    block.product.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    block(torch.ones(10, 40))
    assert set(seen[0].unique().tolist()) == {0.0, 2.0}


def test_dropout_drops_its_share_and_passes_the_gradient_where_it_kept():
    torch.manual_seed(0)
    a = torch.ones(300, 1000, requires_grad=True)
    out = dropout(a, 0.2)
    kept = out > 0
    assert kept.double().mean().item() == pytest.approx(0.8, abs=0.004)  # five deviations
    assert set(out.unique().tolist()) == {0.0, 1.25}
    # Neither rows nor columns are drawn alike.
    assert kept.double().mean(0).std().item() == pytest.approx((0.16 / 300) ** 0.5, rel=0.15)
    assert kept.double().mean(1).std().item() == pytest.approx((0.16 / 1000) ** 0.5, rel=0.15)
    out.backward(torch.full_like(out, 2.0))
    assert torch.equal(a.grad, torch.where(kept, 2.5, 0.0))
    assert not torch.equal(dropout(a, 0.2) > 0, kept)


def test_dropout_follows_torchs_seed():
    a = torch.ones(50, 50)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(a, 0.5))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("shape", [(7, 40), (5, 16, 8, 8)])
@pytest.mark.parametrize("unit", [0.0, 1.0, 2.0, 1 / 0.7])
def test_the_product_of_tensor_cores_is_the_product(shape, unit):
    """On the processor, where TF32 is float32: its sums and both gradients."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(shape, generator=generator)
    signs = torch.randint(0, 3, shape, generator=generator) - 1.0
    a = (unit * signs if unit else a).requires_grad_()
    conv = len(shape) == 4
    w = torch.randn(24, shape[1], *(3, 3) * conv, generator=generator).requires_grad_()
    b, v = (t.detach().clone().requires_grad_() for t in (a, sign(w.detach())))
    s = TensorCoreProduct.apply(a, w, sign(w.detach()), unit)
    expected = torch.nn.functional.conv2d(b, v, padding=1) if conv else b @ v.t()
    g = torch.randn(expected.shape, generator=generator)
    s.backward(g)
    expected.backward(g)
    if unit:
        whole = s.detach().double() / unit
        assert (whole - whole.round()).abs().max() < 1e-5
    torch.testing.assert_close(s, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(w.grad, v.grad, rtol=1e-5, atol=1e-4)
    assert not torch.backends.cuda.matmul.allow_tf32
