"""AP2 and shift-based batch normalization, forward and backward, against plain NumPy."""

import numpy as np
import pytest
import torch
from command import configure

from bnnrun.nn.norm import BatchNorm, ShiftBatchNorm, ap2, make_norm

# The switch lies at sqrt(2) · 2^n: 1.41421356...
PINS = [(0, 0), (1.414, 1), (1.415, 2), (0.7071, 0.5), (3, 4), (0.75, 1), (-3, -4), (-0.7071, -0.5)]


def ap2_reference(x):
    """sign(x) · 2^round(log2 |x|), in float64."""
    x = np.asarray(x, float)
    with np.errstate(divide="ignore"):
        return np.where(x == 0, 0.0, np.sign(x) * 2.0 ** np.round(np.log2(np.abs(x))))


@pytest.mark.parametrize(("x", "expected"), PINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ap2_pins(x, expected, dtype):
    assert ap2(torch.tensor([x], dtype=dtype)).item() == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ap2_is_the_nearest_power_of_two_in_the_logarithm(dtype):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=100_000) * 10.0 ** rng.uniform(-30, 30, 100_000)).astype(dtype)
    np.testing.assert_array_equal(ap2(torch.from_numpy(x)).numpy(), ap2_reference(x))


def test_ap2_at_its_switch():
    """The last number below sqrt(2) and the first above it, in both types."""
    for dtype in (np.float32, np.float64):
        above = np.sqrt(np.array(2.0, dtype))
        while float(above) ** 2 < 2:
            above = np.nextafter(above, dtype(4))
        below = above
        while float(below) >= np.sqrt(np.longdouble(2)):
            below = np.nextafter(below, dtype(0))
        assert ap2(torch.from_numpy(np.array([below, above]))).tolist() == [1, 2]


def shift_norm_reference(s, gamma, beta, eps):
    """Alg. 3 with beta, as the Torch7 code: (y, mean, inverse deviation), all float64."""
    mean = s.mean(0)
    c = s - mean
    inv_std = 1 / np.sqrt((c * ap2_reference(c)).mean(0) + eps)
    return ap2_reference(gamma) * c * ap2_reference(inv_std) + beta, mean, inv_std


def shift_norm_backward_reference(s, gamma, g, eps):
    """The Torch7 code's explicit gradient."""
    c = s - s.mean(0)
    ct = ap2_reference(c)
    inv = ap2_reference(1 / np.sqrt((c * ct).mean(0) + eps))
    g_s = ap2_reference(gamma) * inv * (g - g.mean(0) - ct * inv**2 * (ct * g).mean(0))
    return g_s, (ap2_reference(c * inv) * g).sum(0), g.sum(0)


def columns(t):
    """(B, N, H, W) -> (B·H·W, N): the axes that statistics run over, together."""
    return np.moveaxis(t, 1, -1).reshape(-1, t.shape[1])


@pytest.mark.parametrize("shape", [(64, 5), (8, 5, 4, 6)], ids=str)
def test_shift_based_batch_norm_and_its_gradient(shape):
    rng = np.random.default_rng(0)
    norm = ShiftBatchNorm(5, 1e-5, 0.125).double()
    mean, inv_std = np.zeros(5), np.ones(5)
    with torch.no_grad():
        norm.gamma.copy_(torch.from_numpy(rng.normal(size=5)))
        norm.beta.copy_(torch.from_numpy(rng.normal(size=5)))
    gamma, beta = norm.gamma.detach().numpy(), norm.beta.detach().numpy()
    for _ in range(3):
        s = rng.normal(2, 5, shape)
        g = rng.normal(size=shape)
        tensor = torch.from_numpy(s).requires_grad_()
        norm.zero_grad()
        y = norm(tensor)
        y.backward(torch.from_numpy(g))
        expected, mu, inv = shift_norm_reference(columns(s), gamma, beta, 1e-5)
        np.testing.assert_allclose(columns(y.detach().numpy()), expected, rtol=1e-12)
        g_s, g_gamma, g_beta = shift_norm_backward_reference(columns(s), gamma, columns(g), 1e-5)
        np.testing.assert_allclose(columns(tensor.grad.numpy()), g_s, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(norm.gamma.grad.numpy(), g_gamma, rtol=1e-12)
        np.testing.assert_allclose(norm.beta.grad.numpy(), g_beta, rtol=1e-12)
        mean, inv_std = 0.875 * mean + 0.125 * mu, 0.875 * inv_std + 0.125 * inv
    np.testing.assert_allclose(norm.mean.numpy(), mean, rtol=1e-12)
    np.testing.assert_allclose(norm.inv_std.numpy(), inv_std, rtol=1e-12)
    evaluated = norm.evaluate(torch.from_numpy(s)).detach().numpy()
    by_hand = (columns(s) - mean) * (ap2_reference(gamma) * ap2_reference(inv_std)) + beta
    np.testing.assert_allclose(columns(evaluated), by_hand, rtol=1e-12)


def test_the_gradient_is_batch_norms_own_where_every_ap2_is_exact():
    """Deviations of ±4 and power-of-two gamma: no AP2 rounds, so autograd of float BN agrees."""
    s = np.array([1.0, 9.0] * 8)[:, None] * np.array([1.0, -1.0])
    g = np.random.default_rng(0).normal(size=s.shape)
    grads = []
    for kind in (ShiftBatchNorm, BatchNorm):
        norm = kind(2, 1e-12, 0.1).double()
        with torch.no_grad():
            norm.gamma.fill_(2.0)
        tensor = torch.from_numpy(s).requires_grad_()
        norm(tensor).backward(torch.from_numpy(g))
        grads.append([tensor.grad.numpy(), norm.gamma.grad.numpy(), norm.beta.grad.numpy()])
    for ours, theirs in zip(*grads, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("words", "hidden", "output"),
    [
        ([], BatchNorm, BatchNorm),
        (["norm=shift"], ShiftBatchNorm, BatchNorm),
        (["norm=shift", "norm.output=shift"], ShiftBatchNorm, ShiftBatchNorm),
    ],
    ids=str,
)
def test_what_stands_behind_the_output_layer_is_a_choice(words, hidden, output):
    config = configure("train", "dataset=digits", *words).norm
    assert type(make_norm(3, config, last=False)) is hidden
    assert type(make_norm(3, config, last=True)) is output


def test_the_variance_that_shifts_approximate():
    """Shifts overstate it: 1.018 to 1.022 times the true one for Gaussian input."""
    c = np.random.default_rng(0).normal(size=(400_000, 1)) * np.exp2(np.linspace(0, 1, 8))
    ratio = (c * ap2(torch.from_numpy(c)).numpy()).mean(0) / c.var(0)
    assert ratio.min() > 1.01
    assert ratio.max() < 1.03
