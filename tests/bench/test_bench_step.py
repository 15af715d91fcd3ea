"""`bench workload=train_step`: the same network as its competitor, checked, timed, recorded."""

import json

import pytest
import torch
from bench_runs import shown_as

from bnnrun.bench.eager import EagerStep
from bnnrun.bench.step_process import StepProcess
from bnnrun.engine.cpu import factors

WORDS = ("bench", "workload=train_step", "dataset=digits", "arch.width=64", "rounds=3")


@pytest.mark.parametrize("binarization", ["deterministic", "none"])
def test_the_training_step_is_checked_timed_and_recorded(bnnrun, tmp_path, binarization):
    outcome = bnnrun(*WORDS, f"binarization={binarization}")
    assert outcome.status == 0, outcome.err
    found = [json.loads(p.read_text()) for p in (tmp_path / "results" / "runs").glob("*.json")]
    eager = {"torch float32", "torch float32, memory kept"}
    steps = {"bnnrun, fast", "bnnrun, reference", *eager}
    found = [r for r in found if r["details"]["role"] != "roofline"]
    assert {shown_as(r["details"]) for r in found} == steps
    for r in found:
        assert r["quantity"] == "train_step_time"
        assert r["unit"] == "ms"
        assert 0 < r["details"]["minimum"] <= r["value"]
        assert r["details"]["count"] == 3
        assert r["details"]["in_the_same_run"].keys() > {
            "ours:fast", "ours:reference", "float32:torch", "float32:torch/memory_kept",
        }  # fmt: skip
        assert r["details"]["memory_bytes"] > 1e6
    (row,) = (line for line in outcome.out.splitlines() if " bnnrun, fast " in line)
    of = found[0]["details"]["in_the_same_run"]
    assert row.split()[-1] == f"{of['float32:torch'] / of['ours:fast']:.2f}"
    parts = {shown_as(r["details"]): r["details"].get("parts_ms") for r in found}
    for name in eager:
        assert parts[name] is None
    for name in steps - eager:
        assert parts[name]["update"] > 0
    floor = next(r["details"]["floor_ms"] for r in found if "floor_ms" in r["details"])
    assert 0 < sum(floor.values()) < sum(parts["bnnrun, fast"].values())


@pytest.mark.parametrize(
    "word",
    ["norm=shift", "binarization=stochastic", "binarization.estimator=approx", "optimizer=sgd"],
)
def test_what_the_competitor_does_not_have_is_refused(bnnrun, word):
    outcome = bnnrun(*WORDS, word)
    assert outcome.status == 2
    assert "the competitor has" in outcome.err


def test_a_step_that_computes_something_else_is_not_timed(bnnrun, tmp_path, monkeypatch):
    forward = EagerStep.forward

    def other(self, block, a):
        return forward(self, block, a.roll(1, 0))

    monkeypatch.setattr(EagerStep, "forward", other)
    outcome = bnnrun(*WORDS)
    assert outcome.status == 1
    assert "wrong answer, not timed" in outcome.err
    assert not list((tmp_path / "results" / "runs").glob("*.json"))


def test_a_process_that_computes_something_else_is_not_timed(bnnrun, tmp_path, monkeypatch):
    loss = StepProcess.loss
    monkeypatch.setattr(StepProcess, "loss", lambda self: 1.1 * loss(self))
    outcome = bnnrun(*WORDS)
    assert outcome.status == 1
    assert "the loss of its process is" in outcome.err
    assert not list((tmp_path / "results" / "runs").glob("*.json"))


def test_an_update_that_is_another_rule_is_not_timed(bnnrun, monkeypatch):
    def plain(self):
        with torch.no_grad():
            for p in self.network.parameters():
                p.sub_(p.grad, alpha=0.01)

    monkeypatch.setattr(EagerStep, "update", plain)
    outcome = bnnrun(*WORDS)
    assert outcome.status == 1
    assert "after an update" in outcome.err


@pytest.mark.skipif(not factors.HAS_BYTES, reason="no products of bytes here")
def test_a_step_whose_own_update_is_wrong_is_not_timed(bnnrun, monkeypatch):
    """The step that is timed never has these gradients in memory."""
    fused = factors.adam_by_bytes

    def other(w, m, v, q, scales, *more):
        fused(w, m, v, q, 1.1 * scales, *more)

    monkeypatch.setattr(factors, "adam_by_bytes", other)
    outcome = bnnrun(*WORDS)
    assert outcome.status == 1
    assert "the gradient that moved" in outcome.err
