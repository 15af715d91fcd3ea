"""Packing: packed networks against trained ones, bit for bit."""

import functools

import numpy as np
import pytest
import torch
from command import configure

from bnnrun.config import ArchConfig, ConvNetConfig, FirstLayer, MlpConfig, Preprocessing
from bnnrun.data.dataset import Images, ImageSpec
from bnnrun.data.preprocess import fit
from bnnrun.errors import InputError, RunError
from bnnrun.gemm.bits import unpack
from bnnrun.nn.engine import Engine
from bnnrun.nn.network import Network
from bnnrun.nn.quantizers.levels import codes
from bnnrun.pack import convert
from bnnrun.pack.convert import bytes_table, pack_network
from bnnrun.pack.fold import fold
from bnnrun.runtime.model import borders
from bnnrun.runtime.network import PackedNetwork
from bnnrun.runtime.reference import ReferenceNetwork

DIGITS = ImageSpec(image_shape=(1, 8, 8), classes=tuple("0123456789"), max_pixel=16)
ODD = ImageSpec(image_shape=(3, 7, 10), classes=("a", "b", "c"), max_pixel=255)
LINE = ImageSpec(image_shape=(2, 1, 5), classes=("only",), max_pixel=100)
BLACK_WHITE = ImageSpec(image_shape=(1, 5, 3), classes=("a", "b"), max_pixel=1)


def mlp(depth: int, width: int) -> MlpConfig:
    return MlpConfig(name="mlp", depth=depth, width=width)


def convnet(channels: list[int], fc: list[int]) -> ConvNetConfig:
    return ConvNetConfig(name="convnet", channels=channels, fc=fc)


NETWORKS = {
    "mlp": (DIGITS, mlp(2, 33)),
    "mlp of one unit": (DIGITS, mlp(1, 1)),
    "mlp of 8-bit colours": (ODD, mlp(3, 65)),
    "mlp of whole words": (DIGITS, mlp(2, 128)),
    "mlp of one bit": (BLACK_WHITE, mlp(2, 17)),
    "mlp of a line": (LINE, mlp(2, 9)),
    "convnet": (DIGITS, convnet([16, 8], [32])),
    "convnet of odd sizes": (ODD, convnet([5, 7, 33], [9, 31])),
    "convnet without fc": (ODD, convnet([40, 3], [])),
    "convnet of one convolution": (LINE, convnet([6], [])),
    "convnet of one bit": (BLACK_WHITE, convnet([3, 35], [5])),
    "deep convnet": (DIGITS, convnet([3, 5, 31, 32, 33, 1], [])),
}
configured = functools.cache(lambda words: configure("train", "dataset=digits", *words))


def pixels_of(kind: ImageSpec, count: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, kind.max_pixel + 1, (count, *kind.image_shape))
    drawn[:2] = np.array([0, kind.max_pixel])[:, None, None, None]  # an empty image and a full one
    return drawn.astype(np.uint8)


@torch.no_grad()
def random_network(
    kind: ImageSpec, arch: ArchConfig, *words: str, preprocessing=Preprocessing.scale, seed=0
) -> Network:
    """A network with both zeros among its weights, random gamma and beta, and exact ties.

    The running statistics are those of a batch, as evaluation sees it, so that few channels are
    constant; some means are integers, which sums of the right parity hit.
    """
    typed = configured(words)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    x = pixels_of(kind, 50, seed=7)
    scaling = fit(preprocessing, Images(x, np.zeros(50, np.uint8)), kind.max_pixel)
    net = Network(arch, typed.binarization, typed.norm, kind, scaling)
    engine, a = Engine(net), torch.from_numpy(x)
    for i, block in enumerate(net.blocks):
        n, w = block.layer.outputs, block.product.weight
        w = w.view(-1)
        w[i % len(w)], w[(i + 3) % len(w)] = 0.0, -0.0
        s = engine.evaluate_product(block, a)
        columns = block.pool(s).double().transpose(0, 1).reshape(n, -1).numpy()
        mean, inv_std = columns.mean(axis=1), 1 / np.sqrt(columns.var(axis=1) + 0.01)
        gamma, beta = rng.normal(0, 1, (2, n))
        if not block.layer.last:
            tie = rng.random(n) < 0.3
            mean[tie], beta[tie] = mean[tie].round(), 0
            gamma[rng.random(n) < 0.1] = 0
            gamma[rng.random(n) < 0.05] = -0.0
            beta[rng.random(n) < 0.05] = -0.0
        for name, value in zip(
            ("mean", "inv_std", "gamma", "beta"), (mean, inv_std, gamma, beta), strict=True
        ):
            getattr(block.norm, name).copy_(torch.from_numpy(value))
        a = engine.evaluate_norm_act(block, s)[0]
    return net


def trained_answer(net: Network, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """(codes of each hidden layer, channels last, which of one bit are the bits; scores)."""
    with torch.no_grad():
        *hidden, scores = Engine(net).trace(torch.from_numpy(x))
    pairs = zip(net.blocks, hidden, strict=False)
    hidden_codes = [codes(y, block.layer.output_bits).movedim(1, -1).numpy() for block, y in pairs]
    return hidden_codes, scores.numpy()


def runners(model):
    """All that runs a packed model."""
    return {
        "reference": ReferenceNetwork(model),
        "bytes": PackedNetwork(model, FirstLayer.bytes),
        "planes": PackedNetwork(model, FirstLayer.planes),
    }


def assert_packed_is_trained(net: Network, x: np.ndarray) -> None:
    hidden, scores = trained_answer(net, x)
    for name, runner in runners(pack_network(net, {})).items():
        bits, got = runner.trace(x)
        assert got.dtype == scores.dtype == np.float64
        assert len(bits) == len(hidden)
        for i, (ours, theirs) in enumerate(zip(bits, hidden, strict=True)):
            assert ours.shape == theirs.shape, f"{name}, hidden layer {i + 1}"
            different = np.argwhere(ours != theirs)
            assert len(different) == 0, f"{name}, hidden layer {i + 1}: {different[:5].tolist()}"
        np.testing.assert_array_equal(got, scores, err_msg=name)


@pytest.mark.parametrize("preprocessing", [Preprocessing.scale, Preprocessing.standardize])
@pytest.mark.parametrize("norm", ["batch", "shift"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_packed_network_is_the_trained_one(name, norm, preprocessing):
    """Each hidden bit, and each score to the last bit."""
    kind, arch = NETWORKS[name]
    net = random_network(kind, arch, f"norm={norm}", preprocessing=preprocessing)
    assert_packed_is_trained(net, pixels_of(kind, 13))


@pytest.mark.parametrize("bits", ["1, 2", "2, 1", "2, 2", "3, 4", "4, 3"])
@pytest.mark.parametrize("name", ["mlp of 8-bit colours", "convnet", "convnet of odd sizes"])
def test_a_packed_network_of_more_bits_is_the_trained_one(name, bits):
    """Each code, and each score to the last bit."""
    of_weights, of_activations = bits.split(", ")
    words = (f"binarization.weight_bits={of_weights}",
             f"binarization.activation_bits={of_activations}")  # fmt: skip
    kind, arch = NETWORKS[name]
    for norm, preprocessing in (("batch", Preprocessing.standardize),
                                ("shift", Preprocessing.scale)):  # fmt: skip
        net = random_network(kind, arch, f"norm={norm}", *words, preprocessing=preprocessing)
        hidden, _ = trained_answer(net, pixels_of(kind, 13))
        assert all(len(np.unique(h)) >= 2 ** int(of_activations) - 1 for h in hidden)
        assert_packed_is_trained(net, pixels_of(kind, 13))


@pytest.mark.parametrize("name", ["mlp", "convnet of odd sizes"])
def test_a_shift_norm_behind_the_output_layer_packs(name):
    kind, arch = NETWORKS[name]
    net = random_network(kind, arch, "norm=shift", "norm.output=shift")
    assert_packed_is_trained(net, pixels_of(kind, 9))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", ["mlp", "convnet of odd sizes"])
def test_other_draws_of_a_network_pack_too(name, seed):
    kind, arch = NETWORKS[name]
    net = random_network(kind, arch, seed=seed)
    assert_packed_is_trained(net, pixels_of(kind, 21, seed=seed))


@pytest.mark.parametrize("arch", [mlp(3, 40), convnet([5, 7, 33], [9])], ids=["mlp", "convnet"])
def test_a_network_of_stochastic_units_packs_with_the_averages_of_its_batches(arch):
    """Evaluation takes Sign, whatever training draws."""
    net = random_network(ODD, arch, "binarization=stochastic")
    for seed in range(3):
        Engine(net).forward(torch.from_numpy(pixels_of(ODD, 50, seed=seed)))
    assert_packed_is_trained(net, pixels_of(ODD, 30))


def test_the_hidden_bits_that_are_compared_are_not_constant():
    """The tests above would pass on constant channels too: most channels here are not."""
    for name in ("mlp", "convnet of odd sizes"):
        hidden, _ = trained_answer(
            random_network(*NETWORKS[name]), pixels_of(NETWORKS[name][0], 60)
        )
        for bits in hidden:
            share = bits.reshape(-1, bits.shape[-1]).mean(axis=0)
            assert ((share > 0) & (share < 1)).mean() > 0.5


@pytest.mark.parametrize("name", ["mlp", "convnet of odd sizes"])
def test_weights_are_packed_as_their_signs_and_both_zeros_as_plus_one(name):
    net = random_network(*NETWORKS[name])
    behind = None
    for block, layer in zip(net.blocks, pack_network(net, {}).layers, strict=True):
        w = block.product.weight.detach().numpy()
        assert (w == 0).sum() == 2
        assert np.signbit(w[w == 0]).tolist() in ([True, False], [False, True])
        if block.layer.is_conv:
            w = w.transpose(0, 2, 3, 1)
        elif behind is not None and behind.is_conv:
            height, width = behind.pooled
            w = w.reshape(len(w), behind.outputs, height, width).transpose(0, 2, 3, 1)
        expected = np.where(w >= 0, 1, -1).reshape(len(w), -1)
        np.testing.assert_array_equal(unpack(layer.weight[0], block.layer.k), expected)
        behind = block.layer


def test_a_first_convolution_has_thresholds_for_each_border():
    model = pack_network(random_network(*NETWORKS["convnet of odd sizes"]), {})
    classes, taps = borders(7, 10)
    assert len(taps) == 9
    assert [layer.threshold.shape[1] for layer in model.layers] == [9, 1, 1, 1, 1, 0]
    assert taps.sum(axis=(1, 2))[classes].tolist() == [
        [(2 if y in (0, 6) else 3) * (2 if x in (0, 9) else 3) for x in range(10)] for y in range(7)
    ]
    # What the constant part of the input sums to differs from border to border.
    assert (np.ptp(model.layers[0].threshold, axis=1) > 0).any()


def test_packing_leaves_the_network_as_it_was():
    net = random_network(*NETWORKS["convnet"])
    before = {key: value.clone() for key, value in net.state_dict().items()}
    pack_network(net, {})
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_packing_says_what_it_came_from_and_how_pixels_enter():
    net = random_network(*NETWORKS["mlp"])
    model = pack_network(net, {"dataset": "digits"})
    assert model.source == {"dataset": "digits"}
    assert model.spec == DIGITS
    assert model.input == (2.0, -16.0, 16.0)


def test_the_table_of_bytes_adds_up():
    model = pack_network(random_network(*NETWORKS["mlp of whole words"]), {})
    columns, rows = bytes_table(model)
    assert columns[:4] == ["layer", "weights", "bytes, bits", "bytes, float32"]
    assert [row[0] for row in rows] == ["fc1", "fc2", "fc3", "sum"]
    weights = [64 * 128, 128 * 128, 128 * 10]
    assert [row[1] for row in rows] == [f"{n:,}" for n in (*weights, sum(weights))]
    assert [row[2] for row in rows] == [f"{n // 8:,}" for n in (*weights, sum(weights))]
    assert [row[3] for row in rows] == [f"{4 * n:,}" for n in (*weights, sum(weights))]
    assert [row[4] for row in rows] == ["32.0"] * 4
    # A threshold of 4 bytes and a bit of direction a unit; mean, scale and shift a class.
    assert [row[5] for row in rows] == ["528", "528", "240", "1,296"]


REFUSED = {
    "float": (["binarization=none"], r"fc1 .*binarization\.weights=none"),
    "relu": (["binarization=weights"], r"fc1 .*binarization\.activations=none"),
    "real weights": (
        ["binarization=deterministic", "binarization.weights=none"],
        r"fc1 .*binarization\.weights=none",
    ),
    "five bits of weights": (
        ["binarization.weight_bits=5"],
        r"fc1 has weights of 5 bits: 1 to 4 bits are packed",
    ),
    "eight bits of activations": (
        ["binarization.activation_bits=[1,8]"],
        r"fc2 has activations of 8 bits: .* 255 thresholds",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_network_without_bits_is_refused_with_the_reason(case):
    words, reason = REFUSED[case]
    net = random_network(DIGITS, mlp(2, 8), *words)
    with pytest.raises(InputError, match=reason) as refused:
        pack_network(net, {})
    assert len(str(refused.value).splitlines()) == 1


def test_a_whitened_input_is_refused_with_the_reason():
    net = random_network(DIGITS, mlp(2, 8), preprocessing=Preprocessing.zca)
    with pytest.raises(InputError, match=r"dataset\.preprocessing=zca") as refused:
        pack_network(net, {})
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["mean", "gamma", "beta", "inv_std"])
@pytest.mark.parametrize("layer", [0, 1, 2], ids=["first", "hidden", "output"])
def test_a_norm_that_is_not_finite_is_refused_by_name(layer, name, value):
    net = random_network(DIGITS, mlp(2, 8))
    with torch.no_grad():
        getattr(net.blocks[layer].norm, name)[3] = value
    with pytest.raises(InputError, match=rf"fc{layer + 1}: .*not finite"):
        pack_network(net, {})


def test_packing_stops_where_a_threshold_is_wrong(monkeypatch):
    """The check behind folding is made, for each layer, on what was folded."""
    net = random_network(DIGITS, mlp(2, 8))
    calls = 0

    def moved(norm, largest, level):
        nonlocal calls
        calls += 1
        t, flip = fold(norm, largest, level)
        if calls == 2:
            varied = np.flatnonzero(np.abs(t) < largest)
            t[varied[0]] += 1
        return t, flip

    monkeypatch.setattr(convert, "fold", moved)
    with pytest.raises(RunError, match=r"fc2: channel \d is no threshold at the sum -?\d+"):
        pack_network(net, {})


def test_directions_are_the_signs_of_gamma():
    net = random_network(*NETWORKS["mlp"])
    layer = pack_network(net, {}).layers[1]
    gamma = net.blocks[1].norm.gamma.detach().numpy()
    np.testing.assert_array_equal(layer.flip, gamma < 0)
    assert 0 < layer.flip.sum() < 33
