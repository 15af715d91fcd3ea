"""Pools of records: which are alike, intervals, verdicts, notes."""

import math
import statistics

import pytest
from made_records import read_data, settings, trained
from scipy import optimize, stats

from bnnrun import paper
from bnnrun.report.pooling import by_budget, difference, interval, noise, notes, pool, verdict

PRINTED = paper.TABLE1["theano", "mnist"]  # 0.96


def only(*measured):
    (single,) = pool(measured)
    return single


# ---- pools -----------------------------------------------------------------------------------


def test_records_alike_in_all_but_the_seed_are_pooled():
    single = only(trained(value=2.0, seed=1), trained(value=1.0, created=1))
    assert [r.value for r in single.records] == [1.0, 2.0]


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 5},
        {"changed": {"arch__width": 8}},
        {"device": "cuda"},
        {"data": read_data(files=[{"name": "train", "md5": "b"}])},
        {"experiment": "table1_mnist_float"},
    ],
    ids=["epochs", "settings", "device", "data", "experiment"],
)
def test_what_differs_in_more_than_the_seed_is_another_pool(other):
    assert len(pool([trained(), trained(seed=1, **other)])) == 2


def test_the_largest_budget_leads_then_the_most_seeds():
    short, one = only(trained(epochs=5)), only(trained(device="cuda"))
    two = only(trained(), trained(seed=1))
    assert by_budget([short, one, two]) == [two, one, short]


@pytest.mark.parametrize("values", [(1.0, 1.4), (0.9, 1.0, 1.2, 0.8), (0.0, 0.01)])
def test_the_interval_between_seeds_is_students(values):
    single = only(*(trained(value=v, seed=i) for i, v in enumerate(values)))
    mean, error = statistics.mean(values), stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, mean, error)
    assert interval(single) == pytest.approx((max(0, low), high))


@pytest.mark.parametrize("value", [0.0, 0.96, 31.32, 100.0])
def test_the_interval_of_one_run_is_wilsons_on_its_test_images(value):
    count, p, z = 10_000, value / 100, stats.norm.ppf(0.975)
    middle = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    expected = (100 * (middle - half), 100 * (middle + half))
    assert interval(only(trained(value=value))) == pytest.approx(expected, abs=1e-9)


def test_noise_is_the_designs_formula():
    single = only(trained(value=1.0), trained(value=1.4, seed=1))
    p, s = 0.012, statistics.stdev([0.010, 0.014])
    assert noise(single) == pytest.approx(200 * math.sqrt(s**2 / 2 + 2 * p * (1 - p) / 10_000))
    p = 0.01
    assert noise(only(trained())) == pytest.approx(200 * math.sqrt(2 * p * (1 - p) / 10_000))


# ---- verdicts --------------------------------------------------------------------------------

HELD_OUT = {"data": read_data(notes=["held out from train"])}
ALTERED = {"data": read_data(files=[{"name": "x", "md5": "b", "published_md5": "a"}])}
VERDICTS = {
    "not run": None,
    "different data": HELD_OUT,
    "reduced budget (20 of 1,000 epochs)": {"epochs": 20},
    "within noise": {"value": 1.0},
    "better": {"value": 0.5},
    "worse": {"value": 1.5},
}


@pytest.mark.parametrize("said", VERDICTS)
def test_every_verdict(said):
    changes = VERDICTS[said]
    assert verdict(None if changes is None else only(trained(**changes)), PRINTED) == said


@pytest.mark.parametrize(
    "changes",
    [ALTERED, {"data": {}}, {**HELD_OUT, "epochs": 2}, {"data": read_data("digits")}],
    ids=["altered file", "not told", "reduced too", "another set"],
)
def test_data_that_are_not_the_published_ones_come_first(changes):
    assert verdict(only(trained(**changes)), PRINTED) == "different data"


@pytest.mark.parametrize(("low", "high", "outside"), [(0.96, 5, "worse"), (0.01, 0.96, "better")])
def test_the_verdict_turns_where_the_noise_ends(low, high, outside):
    """At the error e of a single run with |e - 0.96| = 2 sqrt(2 e (1-e) / N), all in shares."""
    at = optimize.brentq(
        lambda e: abs(e - 0.96) - 200 * math.sqrt(2 * e / 100 * (1 - e / 100) / 10_000), low, high
    )
    away = 0.001 if outside == "worse" else -0.001
    assert verdict(only(trained(value=at - away)), PRINTED) == "within noise"
    assert verdict(only(trained(value=at + away)), PRINTED) == outside


def test_seeds_that_scatter_make_more_noise():
    close = [trained(value=1.4 + 0.001 * i, seed=i) for i in range(2)]
    apart = [trained(value=1.0 + 0.8 * i, seed=i) for i in range(2)]
    assert verdict(only(*close), PRINTED) == "worse"
    assert verdict(only(*apart), PRINTED) == "within noise"


def test_an_epoch_number_that_is_not_recorded_is_no_match():
    config = settings("table1_mnist_theano")
    config["trainer"] = {}
    record = trained(details={}, config=config)
    assert verdict(only(record), PRINTED) == "reduced budget (epochs not recorded)"


def test_a_tree_that_was_not_clean_and_a_curve_that_is_absent_are_told():
    dirty = trained(source={"commit": "c0ffee", "clean": False}, details={"epochs": 1000})
    assert notes(only(dirty)) == (
        "seed 0: the tree was not clean",
        "seed 0: no curve in its record",
    )
    unknown = trained(source={"commit": None, "clean": None})
    assert notes(only(unknown)) == (
        "seed 0: whether the tree was clean is not recorded",
        "seed 0: no commit is recorded",
    )


def test_two_of_our_own_pools_are_compared_with_the_spread_of_both():
    one = only(trained(value=1.0))
    assert difference(only(trained(value=1.1)), one) == "within noise"
    assert difference(only(trained(value=2.0)), one) == "worse"
    assert difference(only(trained(value=0.2)), one) == "better"
