"""Folding: thresholds and directions against batch norm and Sign, in exact arithmetic."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bnnrun.pack.fold import Affine, first_difference, fold


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
    difference = first_difference(norm, moved, flip, largest)
    assert difference == ((0, int(wrong[0])) if len(wrong) else None)
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
