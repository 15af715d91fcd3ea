"""Pooling, batch norm and Sign or ReLU of a hidden layer in one, against torch in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bnnrun.config import Estimator
from bnnrun.engine.cpu.norm_act import (
    ESTIMATORS,
    TINY,
    NormAct,
    PoolNormActivation,
    evaluate_norm_act,
)
from bnnrun.nn.norm import BatchNorm
from bnnrun.nn.quantizers import quantize


def plain(s, gamma, beta, how):
    """The same by torch's own operations."""
    p = F.max_pool2d(s, 2) if how.pool else s
    y, *of_batch = torch.native_batch_norm(p, gamma, beta, None, None, True, 0.0, how.eps)
    estimators = {bounds: estimator for estimator, bounds in ESTIMATORS.items()}
    a = F.relu(y) if how.relu else quantize(y, estimators[how.low, how.high])
    return a, *of_batch, y.detach()


def whole_sums(shape, seed=0):
    """Even numbers, as sums of ±1 are: many windows of the pooling hold equals."""
    rng = np.random.default_rng(seed)
    s = torch.from_numpy(2.0 * rng.integers(-20, 21, shape)).float()
    s[:, 1] = 6  # a channel that says nothing
    return s.contiguous(memory_format=torch.channels_last) if s.dim() == 4 else s


# Fewer pixels than a summand of the statistics (512), and more; not a whole number of those.
@pytest.mark.parametrize(
    ("shape", "pool"),
    [((50, 33), False), ((1100, 5), False), ((530, 1030), False), ((6, 20, 8, 4), True),
     ((6, 20, 8, 4), False),
     ((70, 3, 6, 4), True), ((33, 16, 4, 4), False), ((9, 4, 2, 2), True)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize(
    "activation",
    [ESTIMATORS[Estimator.ste], ESTIMATORS[Estimator.identity], (TINY, np.inf, True)],
    ids=["ste", "identity", "relu"],
)
def test_pooling_norm_and_activation_in_one_are_those_of_torch(shape, pool, activation):
    """In float64: what is compared keeps away from the edges, where rounding decides."""
    how, s = NormAct(1e-4, pool, *activation), whole_sums(shape)
    rng = np.random.default_rng(1)
    gamma, beta = (torch.from_numpy(rng.normal(size=shape[1])).float() for _ in range(2))
    beta[1] = -0.5
    ours, theirs = (
        [t.to(dtype).clone().requires_grad_() for t in (s, gamma, beta)]
        for dtype in (torch.float32, torch.float64)
    )
    a, mean, inv_std = PoolNormActivation.apply(*ours, how)
    expected, mean64, inv64, y = plain(*theirs, how)
    assert torch.minimum(y.abs(), (y.abs() - 1).abs()).min() > 1e-5
    if how.relu:
        torch.testing.assert_close(a.double(), expected, rtol=1e-5, atol=1e-6)
    else:
        assert torch.equal(a.double(), expected)
    torch.testing.assert_close(mean.double(), mean64, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(inv_std.double(), inv64, rtol=1e-6, atol=0)
    g = torch.from_numpy(rng.normal(size=a.shape)).float()
    a.backward(g)
    expected.backward(g.double())
    for p, q in zip(ours, theirs, strict=True):
        scale = q.grad.abs().max().item()
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-4, atol=1e-5 * scale)


def test_the_first_of_equals_has_the_gradient_of_a_window():
    s = torch.tensor([[[[1.0, 1, 3, 4], [1, 1, 4, 4], [2, 5, 0, 7], [5, 5, 7, 7]]]])
    s = torch.cat([s, -s, s + 1]).requires_grad_()
    one, zero = torch.ones(1), torch.zeros(1)
    a, *_ = PoolNormActivation.apply(
        s, one, zero, NormAct(1e-4, True, *ESTIMATORS[Estimator.identity])
    )
    a.backward(torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)))
    moved = (s.grad != 0).int()
    first = [[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    assert moved[0, 0].tolist() == moved[2, 0].tolist() == first
    assert moved[1, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "pool"),
    [((1, 7), False), ((600, 11), False), ((40, 5, 6, 8), True), ((3, 4, 7, 5), True),
     ((3, 1, 2, 2), True), ((2, 16, 5, 3), False)],
    ids=str,
)  # fmt: skip
def test_signs_and_saturated_shares_of_evaluation_are_batch_norms_own(shape, pool, dtype):
    """Exactly: the same operations in float64, the edges of Sign and of saturation included."""
    rng, norm = np.random.default_rng(0), BatchNorm(shape[1], 1e-4, 0.1)
    with torch.no_grad():
        norm.gamma.copy_(torch.from_numpy(rng.choice([-0.5, 0.25, 0.3], shape[1])))
        norm.beta.copy_(torch.from_numpy(rng.choice([0.0, 0.5, 0.1], shape[1])))
        norm.mean.copy_(torch.from_numpy(rng.choice([0.0, 2.0, 0.7], shape[1])))
        norm.inv_std.copy_(torch.from_numpy(rng.choice([0.5, 1.0, 0.123], shape[1])))
    s = torch.from_numpy(2.0 * rng.integers(-6, 7, shape)).to(dtype)
    with torch.no_grad():
        y = norm.evaluate(F.max_pool2d(s, 2) if pool else s)
    a, saturated = evaluate_norm_act(s, norm.affine(), pool)
    assert a.dtype == torch.float32
    assert torch.equal(a, torch.where(y >= 0, 1.0, -1.0))
    assert saturated == (y.abs() > 1).double().mean().item()
    a, share = evaluate_norm_act(s, norm.affine(), pool, relu=True)
    assert torch.equal(a, F.relu(y).float())
    assert share == saturated


def test_evaluation_rounds_in_batch_norms_order():
    """Where s - mean, times scale, is -shift or about 1, to the last bit: on the edges."""
    rng = np.random.default_rng(0)
    s, mean = rng.integers(-99, 100, 400).astype(float), rng.normal(size=400)
    scale = np.where(np.arange(400) < 200, 1 / (s - mean), rng.normal(size=400))
    shift = np.where(np.arange(400) < 200, 0, -(s - mean) * scale)
    y = (s - mean) * scale + shift
    assert not y[200:].any() and 0 < (y[:200] == 1).sum() < 200
    a, saturated = evaluate_norm_act(torch.from_numpy(s[None]), (mean, scale, shift), False)
    assert (a == 1).all()
    assert saturated == (np.abs(y) > 1).mean()
