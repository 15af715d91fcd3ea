"""Adam, its scale and clip, and the schedules, against plain NumPy."""

import dataclasses

import numpy as np
import pytest
import torch
from command import configure

from bnnrun.config import (
    AdaMaxRule,
    AdamConfig,
    Preprocessing,
    Schedule,
    SgdConfig,
    ShiftAdaMaxConfig,
)
from bnnrun.data.preprocess import Input
from bnnrun.nn.network import Network
from bnnrun.nn.optim import Adam, Sgd, ShiftAdaMax, make_optimizer
from bnnrun.nn.schedule import learning_rate

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
    """20 steps of rounding each."""
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
    net = Network(typed.arch, typed.binarization, typed.norm, mnist.SPEC, scale)
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
    """The authors' MNIST script: 0.003 in epoch 1, factor 0.990832, end/factor in epoch 1000."""
    config = AdamConfig(name="adam", lr=0.003, lr_end=3e-7)
    rates = [learning_rate(config, epoch, 1000) for epoch in range(1, 1001)]
    assert rates[0] == 0.003
    assert rates[1] / rates[0] == pytest.approx(0.990832, abs=1e-6)
    assert rates[-1] == pytest.approx(3e-7 / 0.990832, rel=1e-5)


def test_the_constant_schedule_is_constant():
    config = AdamConfig(name="adam", lr=0.003, lr_end=3e-7, schedule=Schedule.constant)
    assert {learning_rate(config, epoch, 10) for epoch in range(1, 11)} == {0.003}


ADAMAX = ShiftAdaMaxConfig(
    name="shift_adamax", lr=2.0**-6, schedule=Schedule.halving, halve_every=20, beta1=0.9,
    beta2=0.999, rule=AdaMaxRule.code,
)  # fmt: skip


def power_of_two(x):
    with np.errstate(divide="ignore"):
        return np.where(x == 0, 0.0, np.sign(x) * 2.0 ** np.round(np.log2(np.abs(x))))


def adamax_code(w, gradients, lr, scale):
    """As the Torch7 code has it: AP2(v) + 2^-27 is written back."""
    m = v = np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, np.maximum(0.999 * v, np.abs(g))
        v = power_of_two(v) + 2.0**-27
        w = np.clip(w - power_of_two(np.float64(lr / (1 - 0.9**t))) * scale * m / v, -1, 1)
    return w


def adamax_paper(w, gradients, lr, scale):
    """The printed rule: AP2 only when used, the state stays float."""
    b1, b2 = 0.9, 0.999
    m = v = np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, np.maximum(b2 * v, np.abs(g))
        with np.errstate(divide="ignore"):
            inverse = np.where(v == 0, 0, power_of_two(1 / v))
        w = np.clip(w - power_of_two(np.float64(lr / (1 - b1**t))) * scale * m * inverse, -1, 1)
    return w


@pytest.mark.parametrize("rule", AdaMaxRule)
def test_shift_adamax_by_both_rules(rule):
    rng = np.random.default_rng(0)
    w = rng.uniform(-1, 1, (5, 7))
    gradients = [rng.normal(size=w.shape) * 10.0 ** -rng.integers(0, 4) for _ in range(30)]
    for g in gradients:
        g[0] = 0  # parameters that never get a gradient
    config = dataclasses.replace(ADAMAX, rule=rule)
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    optimizer = ShiftAdaMax([{"params": [p], "scale": 4.0, "clip": True}], config)
    for g in gradients:
        p.grad = torch.from_numpy(g)
        optimizer.step()
    if rule is AdaMaxRule.code:
        expected = adamax_code(w, gradients, config.lr, 4.0)
    else:
        expected = adamax_paper(w, gradients, config.lr, 4.0)
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(p.detach().numpy()[0], w[0])


def test_the_papers_adamax_stays_finite_where_v_has_decayed_away():
    """After some 80,000 steps without gradient v is near 1e-39, where 1 / v is no float32."""
    p = torch.nn.Parameter(torch.full((4,), 0.5))
    optimizer = ShiftAdaMax([{"params": [p]}], dataclasses.replace(ADAMAX, rule=AdaMaxRule.paper))
    p.grad = torch.zeros(4)
    optimizer.step()
    optimizer.state[p]["v"].copy_(torch.tensor([0.0, 1e-45, 1e-40, 1e-37]))
    optimizer.step()
    assert p.tolist() == [0.5] * 4


@pytest.mark.parametrize(("rule", "decays"), [(AdaMaxRule.code, False), (AdaMaxRule.paper, True)])
def test_v_of_the_code_never_decays_and_the_papers_does(rule, decays):
    """After a thousandfold drop of the gradient."""
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = ShiftAdaMax([{"params": [p]}], dataclasses.replace(ADAMAX, rule=rule))
    for t in range(3000):
        p.grad = torch.full((1,), 2.0 if t < 100 else 2e-3, dtype=torch.float64)
        optimizer.step()
    v = optimizer.state[p]["v"].item()
    assert v < 0.2 if decays else v >= 2.0


def test_the_first_step_of_the_codes_adamax():
    """AP2(10 · 2^-6) = 2^-3, m / v in 0.07..0.14, times 64: between 0.57 and 1.13."""
    p = torch.nn.Parameter(torch.zeros(200, dtype=torch.float64))
    p.grad = torch.linspace(0.001, 5, 200, dtype=torch.float64)
    ShiftAdaMax([{"params": [p], "scale": 64.0}], ADAMAX).step()
    assert p.abs().min().item() > 0.56
    assert p.abs().max().item() < 1.14


def test_sgd_with_momentum():
    config = SgdConfig(name="sgd", lr=0.1, momentum=0.9)
    p = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer, u, w = Sgd([{"params": [p], "scale": 2.0}], config), 0.0, 0.0
    for g in (1.0, -2.0, 0.5):
        p.grad = torch.full((3,), g, dtype=torch.float64)
        optimizer.step()
        u = 0.9 * u + g
        w -= 2.0 * 0.1 * u
    np.testing.assert_allclose(p.detach().numpy(), w)


def test_the_halving_schedule_shifts_at_intervals():
    rates = [learning_rate(ADAMAX, epoch, 100) for epoch in (1, 20, 21, 40, 41)]
    assert rates == [2.0**-6, 2.0**-6, 2.0**-7, 2.0**-7, 2.0**-8]


def test_c_as_a_power_of_two_and_the_scale_of_gamma():
    shown = groups("optimizer.lr_scale=c_power_of_two", "optimizer.scale_gamma=true")
    assert [g["scale"] for g in shown[::3]] == [32.0, 8.0, 8.0, 8.0]
    assert [round(g["scale"], 2) for g in shown[1::3]] == [6.53, 6.53, 6.53, 2.58]
    assert all(g["clip"] for g in groups("optimizer.clip=all"))
