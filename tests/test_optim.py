"""Adam, its scale and clip, and the schedules, against plain NumPy."""

import numpy as np
import pytest
import torch
from command import configure

from bnnrun.config import AdamConfig, Preprocessing, Schedule
from bnnrun.data.preprocess import Input
from bnnrun.nn.models import Network
from bnnrun.train.optim import Adam, make_optimizer
from bnnrun.train.schedule import learning_rate

CONFIG = AdamConfig(name="adam", lr=0.01, lr_end=1e-4)


def lasagne_adam(w, gradients, lr, scale, clip):
    """Lasagne's update, in float64."""
    m = v = np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        rate = lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        w = w - scale * rate * m / (np.sqrt(v) + 1e-8)
        w = np.clip(w, -1, 1) if clip else w
    return w


@pytest.mark.parametrize(("scale", "clip"), [(1.0, False), (20.0, True)])
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-9), ("float32", 1e-3)])
def test_adam_is_lasagnes(scale, clip, dtype, rtol):
    """float64 takes the tensor operations, float32 the fused pass; 20 steps of rounding each."""
    rng = np.random.default_rng(0)
    w = rng.uniform(-1, 1, (7, 11))
    # Down to 1e-9, where eps beside the uncorrected root makes the difference.
    gradients = [rng.normal(size=w.shape) * 10.0 ** rng.integers(-9, 1, w.shape) for _ in range(20)]
    p = torch.nn.Parameter(torch.from_numpy(w.astype(dtype)))
    adam = Adam([{"params": [p], "scale": scale, "clip": clip}], CONFIG)
    for g in gradients:
        p.grad = torch.from_numpy(g.astype(dtype))
        adam.step()
    expected = lasagne_adam(w, gradients, 0.01, scale, clip)
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=rtol, atol=rtol * 1e-3)
    assert (np.abs(expected).max() == 1) == clip


def test_eps_joins_the_uncorrected_root():
    """torch.optim.Adam takes another step where the gradient is near eps."""
    p, q = (torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
    p.grad = q.grad = torch.full((1,), 1e-8, dtype=torch.float64)
    Adam([{"params": [p]}], CONFIG).step()
    torch.optim.Adam([q], lr=0.01, eps=1e-8).step()
    # g / (g + eps / sqrt(1 - b2)) against g / (g + eps)
    assert p.item() == pytest.approx(-0.01 / (1 + 1 / np.sqrt(0.001)), rel=1e-6)
    assert q.item() == pytest.approx(-0.01 / 2, rel=1e-6)


def groups(*words):
    typed = configure("train", "dataset=mnist", "arch.width=64", *words)
    from bnnrun.data import mnist

    scale = Input(Preprocessing.scale, 2.0, -255.0, 255.0)
    net = Network(typed.arch, typed.binarization, typed.norm, mnist.KIND, scale)
    return make_optimizer(net, typed.optimizer).param_groups


def test_binary_weights_alone_are_scaled_and_clipped():
    shown = [(round(g["scale"], 2), g["clip"], len(g["params"])) for g in groups()]
    c = [np.sqrt((a + b) / 1.5) for a, b in [(784, 64), (64, 64), (64, 64), (64, 10)]]
    of_norm = [(1.0, False, 1)] * 2
    expected = [entry for each in c for entry in [(round(each, 2), True, 1), *of_norm]]
    assert shown == expected


@pytest.mark.parametrize(
    ("words", "scaled", "clipped"),
    [
        (["binarization=none"], False, False),
        (["optimizer.lr_scale=none"], False, True),
        (["optimizer.clip=none"], True, False),
    ],
    ids=str,
)
def test_scale_and_clip_can_be_turned_off(words, scaled, clipped):
    weights = groups(*words)[::3]
    assert all((g["scale"] != 1) == scaled and g["clip"] == clipped for g in weights)


def test_the_geometric_schedule_is_the_papers():
    """paper.md 1.8: 0.003 in epoch 1, factor 0.990832, end/factor in epoch 1000."""
    config = AdamConfig(name="adam", lr=0.003, lr_end=3e-7)
    rates = [learning_rate(config, epoch, 1000) for epoch in range(1, 1001)]
    assert rates[0] == 0.003
    assert rates[1] / rates[0] == pytest.approx(0.990832, abs=1e-6)
    assert rates[-1] == pytest.approx(3e-7 / 0.990832, rel=1e-5)


def test_the_constant_schedule_is_constant():
    config = AdamConfig(name="adam", lr=0.003, lr_end=3e-7, schedule=Schedule.constant)
    assert {learning_rate(config, epoch, 10) for epoch in range(1, 11)} == {0.003}
