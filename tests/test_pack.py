"""Folding and packing: thresholds against batch norm, packed networks against trained ones."""

import functools
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
import torch
from command import configure
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bnnrun.config import ArchConfig, ConvNetConfig, FirstLayer, MlpConfig, Preprocessing
from bnnrun.data.dataset import Images, Kind
from bnnrun.data.preprocess import fit
from bnnrun.errors import InputError, RunError
from bnnrun.gemm.bits import unpack
from bnnrun.nn.models import Network
from bnnrun.pack import convert
from bnnrun.pack.convert import bytes_table, pack_network
from bnnrun.pack.fold import Affine, first_difference, fold
from bnnrun.runtime.model import borders
from bnnrun.runtime.network import PackedNetwork
from bnnrun.runtime.reference import ReferenceNetwork


def affine(mean, scale, shift, scaling=(1.0, 0.0, 1.0), ones=0.0) -> Affine:
    """A batch norm of as many channels as the longest of the lists has; scaling: (p, q, d)."""
    rows = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (mean, scale, shift, ones)))
    mean, scale, shift, ones = (np.atleast_1d(row).copy() for row in rows)
    return Affine(mean, scale, shift, *scaling, ones)


def signs_by_brute_force(norm: Affine, largest: int) -> np.ndarray:
    """Sign(y) = +1 of every sum from -largest to largest, (sums, N), operation by operation."""
    s = np.arange(-largest, largest + 1, dtype=np.float64)[:, None]
    v = s * norm.p
    v = v + norm.q * norm.ones
    v = v / norm.d
    y = (v - norm.mean) * norm.scale
    y = y + norm.shift
    assert np.isfinite(y).all()
    return y >= 0


def assert_folds(norm: Affine, largest: int) -> tuple[np.ndarray, np.ndarray]:
    t, flip = fold(norm, largest)
    s = np.arange(-largest, largest + 1)[:, None]
    np.testing.assert_array_equal(
        np.where(flip, s <= t, s >= t), signs_by_brute_force(norm, largest)
    )
    np.testing.assert_array_equal(flip, norm.scale < 0)
    assert (np.abs(t) <= largest + 1).all()
    assert first_difference(norm, t, flip, largest) is None
    return t, flip


@pytest.mark.parametrize("largest", [0, 1, 2, 63, 1000])
@pytest.mark.parametrize("sign", [1, -1])
def test_thresholds_are_batch_norm_and_sign(sign, largest):
    rng = np.random.default_rng(largest)
    n = 500
    norm = affine(
        rng.normal(0, 1 + largest / 2, n),
        sign * np.abs(rng.normal(0, 1, n)).astype(np.float32) * rng.uniform(0.001, 1, n),
        rng.normal(0, 1, n).astype(np.float32),
    )
    assert_folds(norm, largest)


@pytest.mark.parametrize(
    ("beta", "bit"), [(0.5, True), (0.0, True), (-0.0, True), (-0.5, False), (-1e-300, False)]
)
@pytest.mark.parametrize("gamma", [0.0, -0.0])
def test_a_channel_with_gamma_zero_is_the_sign_of_beta(gamma, beta, bit):
    t, flip = assert_folds(affine([0.0, 3.5, -7.0], gamma, beta), 5)
    assert not flip.any()
    assert (t <= -5).all() if bit else (t > 5).all()


def test_a_tie_is_plus_one_from_either_side():
    """y is exactly 0 at s = 3, or at s = 3 - shift / scale."""
    t, flip = assert_folds(affine(3, [2.0, -2.0], [0.0, -0.0]), 10)
    assert t.tolist() == [3, 3]
    assert flip.tolist() == [False, True]
    t, _ = assert_folds(affine(3, [0.5, -0.5, 0.5, -0.5], [-1.0, -1.0, 1.0, 1.0]), 10)
    assert t.tolist() == [5, 1, 1, 5]


def test_sums_next_to_a_tie_are_on_their_own_side():
    below, above = np.nextafter(3.0, 0), np.nextafter(3.0, 9)
    t, _ = assert_folds(affine([below, 3, above] * 2, [1, 1, 1, -1, -1, -1], 0.0), 10)
    assert t.tolist() == [3, 3, 4, 2, 3, 3]


def test_a_threshold_past_either_end_is_a_constant_channel():
    t, flip = assert_folds(affine([1000, -1000, 1000, -1000], [1, 1, -1, -1], 0.0), 10)
    assert flip.tolist() == [False, False, True, True]
    assert [t[0] > 10, t[1] <= -10, t[2] >= 10, t[3] < -10] == [True] * 4


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e-8, 1e8, 1e40, 1e280])
@pytest.mark.parametrize("sign", [1, -1])
def test_tiny_and_huge_scales_fold(sign, scale):
    rng = np.random.default_rng(0)
    shift = rng.choice([0.0, -0.0, 1.0, -1.0, 1e-300, -1e-300, scale, -scale, 5 * scale], 300)
    norm = affine(rng.integers(-40, 41, 300) / 2, sign * scale, shift)
    assert_folds(norm, 30)


def test_where_rounding_swallows_the_sum_the_arithmetic_decides():
    """shift / scale is near 2^53: many sums in a row give the same y."""
    rng = np.random.default_rng(0)
    scale = rng.choice([1.0, -1.0], 400) * 2.0 ** rng.integers(-60, -40, 400)
    mean = rng.choice([1, -1], 400) * 2.0 ** rng.integers(40, 60, 400)
    shift = mean * scale * (1 + rng.integers(-3, 4, 400) * 2.0**-52)
    norm = affine(mean, scale, shift)
    assert_folds(norm, 300)


def test_exact_arithmetic_gives_the_thresholds_that_solving_gives():
    """Small binary fractions round nowhere: t = ceil(mean - shift / scale), or floor where < 0."""
    rng = np.random.default_rng(0)
    mean, shift = rng.integers(-200, 201, (2, 2000)) / 8
    scale = rng.choice([1, -1], 2000) * 2.0 ** rng.integers(-3, 3, 2000)
    t, flip = fold(affine(mean, scale, shift), 1000)
    for i in range(2000):
        root = Fraction(mean[i]) - Fraction(shift[i]) / Fraction(scale[i])
        assert flip[i] == (scale[i] < 0)
        assert t[i] == (floor(root) if flip[i] else ceil(root))


@pytest.mark.parametrize(
    ("p", "q", "d"),
    [
        (2.0, -255.0, 255.0),
        (2.0, -16.0, 16.0),
        (1.0, -33.318421, 78.567489),
        (1.0, -0.0, 1e-3),
        (2.0, 255.0, 3.0),
    ],
    ids=str,
)
def test_an_affine_input_folds_into_the_thresholds(p, q, d):
    rng = np.random.default_rng(0)
    n, k, levels = 300, 9, 255
    ones = rng.integers(-k, k + 1, n)
    spread = p * levels * k / d
    norm = affine(
        rng.normal(0, spread / 3, n).astype(np.float32),
        rng.normal(0, 1, n).astype(np.float32) * rng.uniform(0, 1, n),
        np.where(rng.random(n) < 0.2, 0, rng.normal(0, 1, n)),
        (p, q, d),
        ones,
    )
    assert_folds(norm, k * levels)


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize("scale", [0.7, -0.7])
def test_a_threshold_that_is_off_by_one_is_found(scale, step):
    norm = affine([0.3, -4.2, 8.9], scale, 0.1)
    t, flip = fold(norm, 20)
    moved = t.copy()
    moved[1] += step
    wrong = first_difference(norm, moved, flip, 20)
    # Of s >= t the lower of the two thresholds is the sum that changes, of s <= t the higher.
    pick = np.maximum if flip[1] else np.minimum
    assert wrong == (1, int(pick(t, moved)[1]))


@pytest.mark.parametrize("largest", [3, 20])
def test_a_wrong_end_and_a_wrong_direction_are_found(largest):
    for beta in (1.0, -1.0):
        norm = affine(0.0, 0.0, beta)
        t, flip = fold(norm, largest)
        other = -largest if beta < 0 else largest + 1
        assert first_difference(norm, np.array([other]), flip, largest) == (0, -largest)
        # A threshold further past the end than needed is the same comparison.
        further = t + (100 if beta < 0 else -100)
        assert first_difference(norm, further, flip, largest) is None
    norm = affine(0.5, 1.0, 0.0)
    t, flip = fold(norm, largest)
    assert first_difference(norm, t, ~flip, largest) is not None
    # Only the last sum, and only the first one.
    for t_wrong, at in ((largest + 1, largest), (-largest, -largest)):
        norm = affine(largest - 0.5 if at > 0 else 0.5 - largest, 1.0, 0.0)
        assert first_difference(norm, np.array([t_wrong]), flip, largest) == (0, at)


numbers = st.floats(-1e4, 1e4, width=32)
factors = st.one_of(
    st.floats(-3, 3, width=32), st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-140, -(2.0**-140)])
)
means = st.one_of(
    numbers, st.integers(-300, 300).map(float), st.floats(-(2.0**100), 2.0**100, width=32)
)
channels = st.tuples(means, factors, factors, st.one_of(numbers, factors), st.integers(-40, 40))
scalings = st.one_of(
    st.sampled_from([(1.0, 0.0, 1.0), (2.0, -255.0, 255.0), (2.0, -16.0, 16.0)]),
    st.tuples(st.just(1.0), st.floats(-255, 0), st.floats(1e-3, 255)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(channels, min_size=1, max_size=20), scalings, st.integers(0, 120))
@example([(3.0, -1.0, 1.0, 0.0, 0)], (1.0, 0.0, 1.0), 3)
def test_any_batch_norm_folds(drawn, scaling, largest):
    mean, gamma, inv_std, shift, ones = np.array(drawn).T
    assert_folds(affine(mean, gamma * inv_std, shift, scaling, ones), largest)


@settings(max_examples=80, deadline=None)
@given(channels, scalings, st.integers(1, 120), st.sampled_from([1, -1]))
def test_any_threshold_that_is_off_by_one_is_found(drawn, scaling, largest, step):
    """Unless both thresholds lie past the sums, where they ask the same."""
    mean, gamma, inv_std, shift, ones = drawn
    norm = affine(mean, gamma * inv_std, shift, scaling, ones)
    t, flip = fold(norm, largest)
    s = np.arange(-largest, largest + 1)
    moved = t + step
    wanted = signs_by_brute_force(norm, largest)[:, 0]
    wrong = s[np.where(flip, s <= moved, s >= moved) != wanted]
    found = first_difference(norm, moved, flip, largest)
    assert found == ((0, int(wrong[0])) if len(wrong) else None)
    assert len(wrong) <= 1


def test_bit_planes_sum_to_eight_bit_products():
    """sum of 2^n · xnor(plane n, w) = 2 (x · w) - 255 sum(w), in whole numbers."""
    rng = np.random.default_rng(0)
    for k in (1, 2, 31, 32, 33, 100, 784, 3072):
        x = rng.integers(0, 256, (5, k))
        x[0], x[1] = 0, 255
        w = rng.choice([-1, 1], (7, k))
        total = np.zeros((5, 7), np.int64)
        for n in range(8):
            plane = 2 * ((x >> n) & 1) - 1
            differ = (plane[:, None] != w).sum(axis=2)
            xnor = k - 2 * differ
            np.testing.assert_array_equal(xnor, plane @ w.T)
            total += 2**n * xnor
        np.testing.assert_array_equal(total, 2 * (x @ w.T) - 255 * w.sum(axis=1))


DIGITS = Kind(image_shape=(1, 8, 8), classes=tuple("0123456789"), levels=16)
ODD = Kind(image_shape=(3, 7, 10), classes=("a", "b", "c"), levels=255)
LINE = Kind(image_shape=(2, 1, 5), classes=("only",), levels=100)
BLACK_WHITE = Kind(image_shape=(1, 5, 3), classes=("a", "b"), levels=1)


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


def pixels_of(kind: Kind, count: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, kind.levels + 1, (count, *kind.image_shape))
    drawn[:2] = np.array([0, kind.levels])[:, None, None, None]  # an empty image and a full one
    return drawn.astype(np.uint8)


@torch.no_grad()
def random_network(
    kind: Kind, arch: ArchConfig, *words: str, preprocessing=Preprocessing.scale, seed=0
) -> Network:
    """A network with both zeros among its weights, random gamma and beta, and exact ties.

    The running statistics are those of a batch, as evaluation sees it, so that few channels are
    constant; some means are whole numbers, which sums of the right parity hit.
    """
    typed = configured(words)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    x = pixels_of(kind, 50, seed=7)
    scaling = fit(preprocessing, Images(x, np.zeros(50, np.uint8)), kind.levels)
    net = Network(arch, typed.binarization, typed.norm, kind, scaling)
    a = torch.from_numpy(x)
    for i, block in enumerate(net.blocks):
        n, w = block.layer.outputs, block.product.weight
        w = w.as_strided((w.numel(),), (1,))  # as it lies: channels last
        w[i % len(w)], w[(i + 3) % len(w)] = 0.0, -0.0
        s = block.product.evaluate(a, whole=True) if i else net.input.product(a, block.product)
        columns = block._pool(s).double().transpose(0, 1).reshape(n, -1).numpy()
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
        a = block.activate(block.normalize(s))
    return net


def trained_answer(net: Network, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """(bits of each hidden layer, channels last; scores)."""
    with torch.no_grad():
        *hidden, scores = [y.numpy() for y in net.trace(torch.from_numpy(x))]
    return [np.moveaxis(y >= 0, 1, -1) for y in hidden], scores


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
        got = runner.scores(x)
        assert got.dtype == scores.dtype == np.float64
        assert len(runner.hidden) == len(hidden)
        for i, (ours, theirs) in enumerate(zip(runner.hidden, hidden, strict=True)):
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
        net(torch.from_numpy(pixels_of(ODD, 50, seed=seed)))
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
        np.testing.assert_array_equal(unpack(layer.weight, block.layer.k), expected)
        behind = block.layer


def test_a_first_convolution_has_thresholds_for_each_border():
    model = pack_network(random_network(*NETWORKS["convnet of odd sizes"]), {})
    classes, taps = borders(7, 10)
    assert len(taps) == 9
    assert [len(layer.threshold) for layer in model.layers] == [9, 1, 1, 1, 1, 0]
    assert taps.sum(axis=(1, 2))[classes].tolist() == [
        [(2 if y in (0, 6) else 3) * (2 if x in (0, 9) else 3) for x in range(10)] for y in range(7)
    ]
    # What the constant part of the input sums to differs from border to border.
    assert (np.ptp(model.layers[0].threshold, axis=0) > 0).any()


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
    assert model.kind == DIGITS
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

    def moved(norm, largest):
        nonlocal calls
        calls += 1
        t, flip = fold(norm, largest)
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
