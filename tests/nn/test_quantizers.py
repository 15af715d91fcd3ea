"""Sign, its sampled form and the estimators of its gradient, by their formulas."""

import numpy as np
import pytest
import torch

from bnnrun.config import Estimator
from bnnrun.nn.quantizers import quantize, sign
from bnnrun.nn.sampling import random_bits, step_key

INF = float("inf")


def gradient(r, estimator, g=1.0, bits=None):
    """(q, what reaches r of the gradient g of each element)."""
    r = torch.tensor(r, requires_grad=True)
    q = quantize(r, estimator, bits)
    q.backward(torch.full_like(r, g))
    return q.tolist(), r.grad.tolist()


def test_sign_of_both_zeros_is_plus_one():
    r = torch.tensor([-1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0])
    assert sign(r).tolist() == [-1, -1, 1, 1, 1, 1]


@pytest.mark.parametrize("estimator", Estimator)
def test_forward_is_sign_whatever_the_estimator(estimator):
    r = torch.tensor([-3.0, -0.0, 0.0, 3.0])
    assert quantize(r, estimator).tolist() == [-1, 1, 1, 1]
    bits = random_bits(step_key(0, 1), r.shape)
    assert torch.equal(quantize(r, estimator, bits), quantize(r, Estimator.ste, bits))


def test_the_straight_through_estimator_is_inclusive():
    """g_r = g_q · 1[|r| <= 1] (Eq. 4)."""
    q, g = gradient([-1.0001, -1.0, -0.5, 0.0, 1.0, 1.0001], Estimator.ste, 3.0)
    assert q == [-1, -1, -1, 1, 1, 1]
    assert g == [0, 3, 3, 3, 3, 0]


def test_the_identity_passes_every_gradient():
    assert gradient([-3.0, 0.5, 3.0], Estimator.identity)[1] == [1, 1, 1]


def test_approx_sign_weighs_by_the_distance_from_zero():
    """g_r = g_q · (2 - 2|r|) · 1[|r| <= 1]."""
    g = gradient([-1.5, -1.0, -0.75, 0.0, 0.5, 1.0, 1.5], Estimator.approx, 3.0)[1]
    assert g == [0, 0, 1.5, 6, 3, 0, 0]


def test_approx_sign_is_the_derivative_of_its_polynomial():
    """r (2 - |r|) inside [-1, 1], ±1 outside: differences of float64."""
    r = np.linspace(-1.3, 1.3, 27) + 0.01

    def f(r):
        return np.where(np.abs(r) <= 1, r * (2 - np.abs(r)), np.sign(r))

    h = 1e-6
    slope = gradient(r.tolist(), Estimator.approx)[1]
    np.testing.assert_allclose(slope, (f(r + h) - f(r - h)) / (2 * h), atol=1e-5)


@pytest.mark.parametrize("estimator", [Estimator.ste, Estimator.approx])
def test_where_it_is_saturated_an_infinite_gradient_stops(estimator):
    assert gradient([2.0], estimator, INF)[1] == [0]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sign_of_every_layout_and_type(memory_format, dtype):
    r = torch.randn(2, 3, 4, 5, dtype=dtype).contiguous(memory_format=memory_format)
    assert torch.equal(sign(r), torch.where(r >= 0, 1.0, -1.0).to(dtype))
    part = r[:, :, 1:3, ::2]
    assert torch.equal(sign(part), torch.where(part >= 0, 1.0, -1.0).to(dtype))


def test_stochastic_sign_has_the_hard_sigmoids_probability():
    """Eq. 2-3: +1 with probability clip((r + 1) / 2, 0, 1); never otherwise at the ends."""
    r = torch.tensor([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]).repeat(40_000, 1)
    sampled = quantize(r, Estimator.ste, random_bits(step_key(0, 1), r.shape))
    assert set(sampled.unique().tolist()) == {-1.0, 1.0}
    share = (sampled > 0).double().mean(0)
    # 0.25 (1 - 0.25) / 40,000 is 0.0022 squared: four deviations.
    np.testing.assert_allclose(share, [0, 0, 0.25, 0.5, 0.75, 1, 1], atol=0.009)


def test_the_ends_of_the_random_bits_are_the_ends_of_the_probability():
    """Bits below p · 2^32 give +1: at r = ±1 every and no number is."""
    r = torch.tensor([1.0, -1.0, 0.0, 0.0])
    bits = torch.tensor([2**32 - 1, 0, 2**31 - 1, 2**31])
    assert quantize(r, Estimator.ste, bits).tolist() == [1, -1, 1, -1]


def test_a_sampled_sign_has_the_same_gradient():
    r = [-1.5, -1.0, 0.3, 1.5]
    bits = random_bits(step_key(0, 1), torch.Size([4]))
    assert gradient(r, Estimator.ste, bits=bits)[1] == [0, 1, 1, 0]
