"""Runs, records and words of older versions, as today's settings have them."""

import json
from pathlib import Path

import pytest
import torch
from command import configure
from digit_runs import assert_refused, records

from bnnrun import upgrade
from bnnrun.cli.verbs import VERBS
from bnnrun.config import EngineChoice
from bnnrun.train import initial

RUNS = Path(__file__).parents[2] / "results" / "runs"
TINY = ("dataset=digits", "trainer.epochs=1", "threads=1")
RECIPE = {"epochs": 60, "batch_size": 50, "width": 8, "lr": {"adam": 0.003, "sgd": 10.0}}


def made_older(saved: dict) -> dict:
    """A configuration as versions wrote it that had a recipe, a precision and a gate."""
    older = {key: dict(value) if isinstance(value, dict) else value for key, value in saved.items()}
    older["dataset"]["recipe"] = RECIPE
    assert older["trainer"].pop("engine") == "fast"
    older["trainer"]["precision"] = "fast"
    assert older["binarization"].pop("estimator") == "ste"
    older["binarization"]["gate"] = True
    return older


def test_an_older_configuration_equals_todays_and_todays_is_left_as_it_is():
    today = initial.settings(configure("train", *TINY), None)
    assert upgrade.config(made_older(today)) == upgrade.config(today) == today
    assert "recipe" in made_older(today)["dataset"]


def test_what_no_engine_of_today_computes_equals_none_of_them():
    today = initial.settings(configure("train", *TINY), None, EngineChoice.reference)
    older = today | {"trainer": today["trainer"] | {"precision": "float32"}}
    assert upgrade.config(older) != today


@pytest.mark.parametrize("experiment", ["table1_mnist_theano", "table1_svhn_torch7"])
def test_a_record_of_the_repository_is_found_equal_to_a_run_of_its_command(experiment):
    path = sorted(RUNS.glob(f"{experiment}-test_error-*.json"))[-1]
    record = upgrade.record(json.loads(path.read_text()))
    words = [w for w in record["command"].split()[2:] if not w.startswith(("device=", "threads="))]
    typed = configure("train", *upgrade.words(words, None))
    assert record["config"] == initial.settings(typed, None)


@pytest.mark.parametrize(
    ("saved", "optimizer", "today"),
    [
        ("dataset.recipe.width=64", "adam", ["profile.width=64"]),
        ("++dataset.recipe.channels=[4,4]", "adam", ["profile.channels=[4,4]"]),
        ("dataset.recipe.lr.adam=0.1", "adam", ["optimizer.lr=0.1"]),
        ("dataset.recipe.lr_end.sgd=0.1", "sgd", ["optimizer.lr_end=0.1"]),
        ("dataset.recipe.lr.adam=0.1", "shift_adamax", []),
        ("trainer.precision=float32", "adam", ["trainer.engine=reference"]),
        ("binarization.gate=False", "adam", ["binarization.estimator=identity"]),
        ("trainer.epochs=3", "adam", ["trainer.epochs=3"]),
        ("~experiment", "adam", ["~experiment"]),
    ],
)
def test_saved_words_are_those_of_today(saved, optimizer, today):
    assert upgrade.words([saved], optimizer) == today
    if today != [saved]:
        assert configure("train", *today), "every new word is a setting"


def test_a_rate_of_the_optimizers_own_wins_over_the_recipes():
    saved = ["optimizer.lr=0.5", "dataset.recipe.lr.adam=0.1"]
    assert configure("train", *upgrade.words(saved, "adam")).optimizer.lr == 0.5


@pytest.mark.parametrize("old", upgrade.RENAMED)
def test_a_key_that_has_gone_names_what_took_its_place(bnnrun, old):
    verb = "eval" if old == "first" else "train"
    assert_refused(bnnrun(verb, f"{old}=1"), f"{old}: no key", f"use {upgrade.RENAMED[old]}")
    assert_refused(bnnrun(verb, "-m", f"{old}=1,2"), f"use {upgrade.RENAMED[old]}")


def test_a_verb_is_told_only_of_keys_that_it_has(bnnrun):
    outcome = bnnrun("eval", "dataset.recipe.width=5")
    assert_refused(outcome, "no such key or group of `bnnrun eval`")
    assert "profile" not in outcome.err


def test_no_key_that_has_gone_is_one_of_today():
    for verb in VERBS:
        shown = str(configure(verb))
        assert "recipe" not in shown and "precision" not in shown and "gate=" not in shown


def test_a_run_of_an_older_version_is_resumed(bnnrun, tmp_path):
    """Its words, its checkpoint and its network are put into the older form."""
    words = ("profile.width=8", "optimizer.lr=0.01")
    assert bnnrun("train", *TINY, *words, "hydra.run.dir=run").status == 0
    saved = tmp_path / "run" / ".hydra" / "overrides.yaml"
    older = saved.read_text().replace("profile.", "dataset.recipe.")
    saved.write_text(older.replace("optimizer.lr", "dataset.recipe.lr.adam"))
    assert "recipe.width=8" in saved.read_text() and "recipe.lr.adam=0.01" in saved.read_text()
    for name in ("checkpoint.pt", "best.pt"):
        path = tmp_path / "run" / name
        content = torch.load(path, weights_only=True)
        content["config"] = made_older(content["config"])
        torch.save(content, path)
    outcome = bnnrun("train", "resume=run")
    assert outcome.status == 0, outcome.err
    assert "resumed run after epoch 1" in outcome.out
    first, second = records(tmp_path)
    assert first["config"] == second["config"]
    assert (first["config"]["arch"]["width"], first["config"]["optimizer"]["lr"]) == (8, 0.01)
    assert bnnrun("pack", "run=run").status == 0
    assert bnnrun("eval", "model=run", "dataset=digits", "--verify").status == 0
