"""Integer scores against float64 scores, pair by pair."""

import itertools

import numpy as np
import pytest

from bnnrun.architecture import Layer
from bnnrun.errors import InputError
from bnnrun.export.c.scores import integer_scores
from bnnrun.gemm.bits import pack
from bnnrun.runtime.model import PackedLayer


def output(k, mean, scale, shift, bits=(1, 1)):
    n = len(mean)
    layer = Layer("fc1", k, n, last=True, weight_bits=bits[0], input_bits=bits[1])
    return PackedLayer(
        layer,
        pack(np.ones((bits[0], n, k), bool)),
        np.zeros((0, 0, n), np.int32),
        np.zeros(n, bool),
        *(np.array(part, np.float64) for part in (mean, scale, shift)),
    )


def assert_same_order(layer, scores):
    """Of every two classes at every two sums."""
    most_sum = layer.shape.k * layer.shape.unit
    sums = np.arange(-most_sum, most_sum + 1, 2)
    trained = layer.scores(sums[:, None]).T
    integers = scores.a[:, None] * sums + scores.b[:, None]
    for m, n in itertools.combinations(range(layer.shape.outputs), 2):
        np.testing.assert_array_equal(
            np.sign(integers[m][:, None] - integers[n]), np.sign(trained[m][:, None] - trained[n])
        )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("k", "bits"),
    [(1, (1, 1)), (10, (1, 1)), (61, (1, 1)), (1, (4, 3)), (10, (2, 1)), (21, (2, 2))],
)
def test_they_order_any_two_classes_as_the_trained_scores(k, bits, seed):
    rng = np.random.default_rng(seed)
    scale = rng.normal(size=5) / np.sqrt(k)
    layer = output(k, rng.normal(size=5), scale, rng.normal(size=5), bits)
    scores = integer_scores(layer)
    assert_same_order(layer, scores)
    largest = np.abs(scores.a) * k * layer.shape.unit + np.abs(scores.b)
    assert largest.max() < 2 ** (scores.bits - 1)


def test_equal_scores_stay_equal():
    layer = output(9, [0.1] * 3, [0.3, 0.3, 0.6], [0.2] * 3)
    scores = integer_scores(layer)
    assert scores.a[0] == scores.a[1] and scores.b[0] == scores.b[1]
    assert_same_order(layer, scores)


def test_a_class_whose_scores_are_all_the_same():
    layer = output(9, [0.0, 0.0], [0.0, 1.0], [0.5, 0.0])
    assert_same_order(layer, integer_scores(layer))


def test_sums_of_one_class_may_share_a_score():
    """Its float64 scores are all the shift: a rounding of no matter, as no image has two sums."""
    layer = output(4, [0.0, 0.0], [2.0**-60, 1.0], [1.0, 0.5])
    assert_same_order(layer, integer_scores(layer))


def test_few_bits_where_they_are_enough():
    assert integer_scores(output(100, [0.0] * 2, [1.0, 2.0], [0.0, 0.5])).bits == 32


def test_scores_that_no_integers_order_are_refused():
    """Equal where the shift is lost in the sum, and not equal where the sum is 0."""
    layer = output(4, [0.0, 0.0], [1.0, 1.0], [0.0, 2.0**-70])
    with pytest.raises(InputError, match=r"class . at the sum -?[0-9]+ and class . at the sum"):
        integer_scores(layer)
