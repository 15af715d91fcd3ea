"""Measuring: in turns, checked first, and the competitor really the same network."""

import json
import math

import pytest
import torch

from bnnrun.bench import measure as measure_module
from bnnrun.bench.eager import EagerStep
from bnnrun.bench.measure import Competitor, Timing, measure
from bnnrun.errors import RunError


class Clock:
    """A clock that moves only when something is called."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def competitor(self, name, seconds, wrong=None):
        def call():
            self.calls.append(name)
            self.now += seconds

        return Competitor(name, call, lambda: wrong)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measure_module.time, "perf_counter", lambda: clock.now)
    return clock


def test_competitors_are_timed_in_turns(clock):
    timings = measure([clock.competitor("a", 1.0), clock.competitor("b", 2.0)], 4, 1e9)
    assert clock.calls == ["a", "a", "b", "b", "a", "b", "b", "a", "a", "b", "b", "a"]
    assert timings["a"].times_s == (1.0,) * 4
    assert timings["b"].median_s == 2.0


def test_no_round_is_begun_after_the_time_is_up_but_three_are_made(clock):
    timings = measure([clock.competitor("a", 10.0)], 100, seconds=35.0)
    assert timings["a"].count == 4
    timings = measure([clock.competitor("a", 10.0)], 100, seconds=1.0)
    assert timings["a"].count == 3


def test_a_wrong_answer_is_never_timed(clock):
    with pytest.raises(RunError, match="b: wrong answer, not timed: 2 is not 3"):
        measure([clock.competitor("a", 1.0), clock.competitor("b", 1.0, "2 is not 3")], 4, 1e9)
    assert clock.calls == []


def test_the_spread_is_the_interquartile_range_over_the_median():
    timing = Timing((1.0, 2.0, 3.0, 4.0, 5.0))
    assert timing.median_s == 3
    assert timing.minimum_s == 1
    assert math.isclose(timing.spread, (4 - 2) / 3)


WORDS = ("bench", "workload=train_step", "dataset=digits", "arch.width=64", "rounds=3")


@pytest.mark.parametrize("binarization", ["deterministic", "none"])
def test_the_training_step_is_checked_timed_and_recorded(bnnrun, tmp_path, binarization):
    outcome = bnnrun(*WORDS, f"binarization={binarization}")
    assert outcome.status == 0, outcome.err
    found = [json.loads(p.read_text()) for p in (tmp_path / "results" / "runs").glob("*.json")]
    assert {r["details"]["competitor"] for r in found} == {"bnnrun", "eager float32"}
    for r in found:
        assert r["quantity"] == "train_step_time"
        assert r["unit"] == "ms"
        assert 0 < r["details"]["minimum"] <= r["value"]
        assert r["details"]["count"] == 3
        assert r["details"]["in_the_same_run"].keys() == {"bnnrun", "eager float32"}


@pytest.mark.parametrize(
    "word", ["norm=shift", "binarization=stochastic", "binarization.gate=false", "optimizer=sgd"]
)
def test_what_the_competitor_does_not_have_is_refused(bnnrun, word):
    outcome = bnnrun(*WORDS, word)
    assert outcome.status == 2
    assert "the competitor has" in outcome.err


def test_a_step_that_computes_something_else_is_not_timed(bnnrun, tmp_path, monkeypatch):
    gradients = EagerStep.gradients

    def other(self, pixels, labels):
        return gradients(self, pixels.flip(3), labels)

    monkeypatch.setattr(EagerStep, "gradients", other)
    outcome = bnnrun(*WORDS)
    assert outcome.status == 1
    assert "wrong answer, not timed" in outcome.err
    assert not list((tmp_path / "results" / "runs").glob("*.json"))


def test_an_update_that_is_another_rule_is_not_timed(bnnrun, monkeypatch):
    def update(self):
        with torch.no_grad():
            for p in self.network.parameters():
                p.sub_(p.grad, alpha=0.01)

    monkeypatch.setattr(EagerStep, "update", update)
    outcome = bnnrun(*WORDS)
    assert outcome.status == 1
    assert "after an update" in outcome.err
