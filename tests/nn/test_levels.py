"""Numbers of k bits: codes, thresholds, gradients, and which settings are refused."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from networks import images, labels_of, network

from bnnrun.architecture import plan
from bnnrun.config import BinarizationConfig, Binarizer, Estimator, MlpConfig
from bnnrun.data.dataset import ImageSpec
from bnnrun.engine.cpu.engine import CpuEngine
from bnnrun.errors import InputError
from bnnrun.nn.engine import Algorithm, Engine
from bnnrun.nn.quantizers import levels, quantize, sign
from bnnrun.nn.quantizers.levels import codes, thresholds

BITS = range(1, 9)
SPEC = ImageSpec((1, 2, 2), ("a", "b"), 255)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", BITS)
def test_thresholds_are_the_fractions_rounded_once(bits, dtype):
    n = 2**bits - 1
    for j, t in enumerate(thresholds(bits, dtype), 1):
        exact = Fraction(2 * j - 2**bits, n)
        below, above = (torch.nextafter(t, torch.tensor(end, dtype=dtype)) for end in (-2.0, 2.0))
        distance = abs(Fraction(t.item()) - exact)
        assert distance <= min(abs(Fraction(x.item()) - exact) for x in (below, above))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", BITS)
def test_a_code_changes_exactly_at_its_threshold(bits, dtype):
    t = thresholds(bits, dtype)
    below = torch.nextafter(t, torch.tensor(-2.0, dtype=dtype))
    j = torch.arange(1, 2**bits)
    assert torch.equal(codes(t, bits), j)
    assert torch.equal(codes(below, bits), j - 1)
    ends = torch.tensor([-np.inf, -1.0, -0.0, 0.0, 1.0, np.inf], dtype=dtype)
    middle, n = 2 ** (bits - 1), 2**bits - 1
    assert codes(ends, bits).tolist() == [0, 0, middle, middle, n, n]


def test_one_bit_is_sign_where_a_formula_with_floor_is_not():
    """(r + 1) / 2 + 1/2 of -1e-9 rounds to 1."""
    r = torch.tensor([-1e-9, -1e-30, -0.0, 0.0, 1e-30, -1.0, 1.0, 3.0])
    assert torch.equal(levels(r, 1), sign(r))
    assert torch.floor((r[0] + 1) / 2 + 0.5) == 1
    assert levels(r, 1)[0] == -1


@pytest.mark.parametrize("bits", BITS)
def test_a_number_is_the_weighted_sum_of_its_bits(bits):
    c = torch.arange(2**bits)
    signs = torch.stack([2 * (c >> i & 1) - 1 for i in range(bits)])
    by_planes = (signs * 2 ** torch.arange(bits)[:, None]).sum(0)
    assert torch.equal(by_planes, 2 * c - (2**bits - 1))


@pytest.mark.parametrize(("estimator", "window"), [(Estimator.ste, 1.0), (Estimator.identity, 9.0)])
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_the_gradient_is_that_of_q_and_not_of_the_integer(bits, estimator, window):
    n = 2**bits - 1
    r = torch.tensor([-1.5, -1.0, -0.3, 0.0, 0.7, 1.0, 1.001]).requires_grad_()
    integers = quantize(r, estimator, bits=bits)
    assert torch.equal(integers.detach(), levels(r.detach(), bits))
    g = torch.arange(1.0, 8.0)
    (integers / n).backward(g)  # dL/dq = g
    torch.testing.assert_close(r.grad, g * (r.detach().abs() <= window))


def test_a_layer_multiplies_integers_and_divides_once():
    net = network("arch.width=40", "arch.dropout_input=0", "arch.dropout_hidden=0",
                  "binarization.weight_bits=2", "binarization.activation_bits=3")  # fmt: skip
    block = net.blocks[1]
    assert block.layer.unit == 3 * 7
    a = levels(torch.randn(20, 40), 3).requires_grad_()
    s = Engine(net).product(block, a)
    w = levels(block.product.weight.detach(), 2)
    assert set(w.unique().tolist()) == {-3, -1, 1, 3}
    sums = a.detach().double() @ w.double().t()
    assert torch.equal(s.detach(), (sums / 21).float())
    g = torch.randn_like(s)
    s.backward(g)
    # They stand for a / 7 and w / 3; the gradient of the integer `a` is 7 times smaller.
    torch.testing.assert_close(a.grad * 7, g @ (w / 3))
    torch.testing.assert_close(block.product.weight.grad, g.t() @ (a.detach() / 7))


def test_sums_that_float32_does_not_hold_are_float64():
    bits = BinarizationConfig(Binarizer.sign, Binarizer.sign, weight_bits=8, activation_bits=8)
    layers = plan(MlpConfig("mlp", depth=2, width=300), SPEC, bits)
    assert layers[1].unit * layers[1].k >= 2**24
    net = network("arch.width=300", "arch.depth=2", "binarization.weight_bits=8",
                  "binarization.activation_bits=8")  # fmt: skip
    block = net.blocks[1]
    a = levels(torch.rand(4, 300), 8)
    w = levels(block.product.weight.detach(), 8)
    sums = block.product.accumulators(a, w)
    assert sums.dtype == torch.float64
    assert torch.equal(sums, (a.long() @ w.long().t()).double())
    x = images(8)
    expected = Engine(net).forward(x)
    for engine in (Engine(net), CpuEngine(net)):
        assert engine.describe(block).product is Algorithm.float64
        assert engine.describe(net.blocks[0]).product is Algorithm.float32
        assert torch.isfinite(engine.gradients(x, labels_of(x, net)))
    assert torch.equal(CpuEngine(net).product(block, a), Engine(net).product(block, a))
    assert expected.dtype == torch.float32


def test_a_list_gives_each_layer_its_own_bits():
    bits = BinarizationConfig(
        Binarizer.sign, Binarizer.sign, weight_bits=[1, 2, 3, 4], activation_bits=[2, 1, 3]
    )
    layers = plan(MlpConfig("mlp", depth=3, width=5), SPEC, bits)
    layer_bits = [(each.input_bits, each.weight_bits, each.output_bits) for each in layers]
    assert layer_bits == [(1, 1, 2), (2, 2, 1), (1, 3, 3), (3, 4, 1)]


REFUSED = {
    "weight_bits=[1, 2]: 2 numbers for 3 layers": {"weight_bits": [1, 2]},
    "activation_bits=[2]: 1 numbers for 2 hidden layers": {"activation_bits": [2]},
    "activation_bits=two: expected a number from 1 to 8": {"activation_bits": "two"},
    "weight_bits=1.5: expected a number from 1 to 8": {"weight_bits": 1.5},
    "weight_bits=True: expected a number from 1 to 8": {"weight_bits": True},
    "weight_bits=2: needs binarization.weights=sign, which is none": {
        "weights": Binarizer.none, "weight_bits": 2,
    },
    "activation_bits=3: needs binarization.activations=sign, which is stochastic": {
        "activations": Binarizer.stochastic, "activation_bits": 3,
    },
    "activation_bits=2: binarization.estimator=approx is the gradient of one bit": {
        "estimator": Estimator.approx, "activation_bits": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_settings_that_describe_no_network_are_refused(line):
    settings = {"weights": Binarizer.sign, "activations": Binarizer.sign, **REFUSED[line]}
    with pytest.raises(InputError) as refused:
        plan(MlpConfig("mlp", depth=2, width=5), SPEC, BinarizationConfig(**settings))
    assert str(refused.value).startswith(f"binarization.{line}")
