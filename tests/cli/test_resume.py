"""A run that is resumed from another folder, and one that starts from another's weights."""

import made_up
import numpy as np
import pytest
import torch
from digit_runs import assert_refused, digits, records

from bnnrun.cli.compose import keys_of
from bnnrun.cli.verbs import VERBS
from bnnrun.report.collect import collect
from bnnrun.report.curves import drawable
from bnnrun.report.experiments import differences
from bnnrun.train import checkpoint, initial

TINY = ("dataset=digits", "arch.width=8", "trainer.epochs=1", "threads=1")


@pytest.fixture
def elsewhere(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def test_places_are_those_of_the_folder_where_the_run_began(
    bnnrun, tmp_path, elsewhere, monkeypatch
):
    """dataset.root, results_dir by default, and the folder of the user's own experiments."""
    made_up.write_mnist(tmp_path / "one", train=300, test=50)
    own = "# @package _global_\ndefaults:\n  - override /dataset: mnist\narch:\n  width: 8\n"
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(own)
    words = ("experiment=mine", "dataset.verify=off", "dataset.validation=50", "trainer.epochs=1")
    words += ("hydra.searchpath=[conf]", "dataset.root=one", "hydra.run.dir=run", "threads=1")
    outcome = bnnrun("train", *words)
    assert outcome.status == 0, outcome.err
    monkeypatch.chdir(elsewhere)
    outcome = bnnrun("train", "resume=../run")
    assert outcome.status == 0, outcome.err
    assert list(elsewhere.iterdir()) == []
    assert len(records(tmp_path)) == 2

    outcome = bnnrun("train", "resume=../run", "results_dir=mine")
    assert outcome.status == 0, outcome.err
    assert len(list((elsewhere / "mine" / "runs").iterdir())) == 1


def test_a_folder_of_images_is_found_again(bnnrun, tmp_path, elsewhere, monkeypatch):
    _, pictures = digits(60)
    for i, picture in enumerate(pictures):
        path = tmp_path / "2024" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    words = ("dataset=folder", "dataset.path=2024", "dataset.image_size=[8,8]", "arch=mlp")
    words += ("arch.width=8", "trainer.epochs=1", "trainer.batch_size=5", "hydra.run.dir=run")
    outcome = bnnrun("train", *words)
    assert outcome.status == 0, outcome.err
    monkeypatch.chdir(elsewhere)
    outcome = bnnrun("train", f"resume={tmp_path}/run")
    assert outcome.status == 0, outcome.err


def test_where_that_folder_is_gone_places_are_those_of_the_folder_now(
    bnnrun, tmp_path, monkeypatch
):
    (tmp_path / "old").mkdir()
    monkeypatch.chdir(tmp_path / "old")
    assert bnnrun("train", *TINY, "hydra.run.dir=run").status == 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").rename("moved")
    outcome = bnnrun("train", "resume=moved/run")
    assert outcome.status == 0, outcome.err
    assert len(records(tmp_path)) == 1


@pytest.mark.parametrize("name", ["overrides.yaml", "hydra.yaml", "config.yaml"])
def test_a_damaged_file_of_the_run_is_wrong_input(bnnrun, tmp_path, elsewhere, monkeypatch, name):
    assert bnnrun("train", *TINY, "hydra.run.dir=run").status == 0
    (tmp_path / "run" / ".hydra" / name).write_text("\t- [")
    monkeypatch.chdir(elsewhere)
    assert_refused(bnnrun("train", "resume=../run"), f"../run/.hydra/{name}")


def test_other_settings_are_referred_to_init(bnnrun):
    assert bnnrun("train", *TINY, "hydra.run.dir=a run").status == 0
    outcome = bnnrun("train", "resume=a run", "trainer.epochs=2")
    assert_refused(outcome, "trainer.epochs=1, not trainer.epochs=2", "'init=a run'")


def test_training_starts_from_the_weights_of_a_run(bnnrun, tmp_path):
    assert bnnrun("train", *TINY, "hydra.run.dir=first").status == 0
    words = (*TINY, "cell=table1.mnist.theano", "optimizer.lr=1e-30", "optimizer.lr_end=1e-31")
    outcome = bnnrun("train", *words, "init=first", "hydra.run.dir=second")
    assert outcome.status == 0, outcome.err
    first, second = (
        checkpoint.load(tmp_path / run / checkpoint.STATE, "checkpoint")
        for run in ("first", "second")
    )
    assert second["epoch"] == 1
    for name in first["network"]:
        if name.endswith("weight"):
            np.testing.assert_array_equal(first["network"][name], second["network"][name])
    before, record = records(tmp_path)
    expected = {"path": "first", "sha256": initial.sha256("first"), "epoch": 1}
    assert record["details"]["init"] == expected
    assert record["config"]["init"] == expected["sha256"]
    assert (before["cell"], record["cell"]) == ("", "")
    assert "init" not in {**before["config"], **before["details"]}


@pytest.mark.parametrize("named", ["first/best.pt", "first/checkpoint.pt", "only_best"])
def test_a_network_file_is_taken_too(bnnrun, tmp_path, named):
    assert bnnrun("train", *TINY, "hydra.run.dir=first").status == 0
    (tmp_path / "only_best").mkdir()
    (tmp_path / "only_best" / "best.pt").write_bytes((tmp_path / "first/best.pt").read_bytes())
    outcome = bnnrun("train", *TINY, f"init={named}", "hydra.run.dir=second")
    assert outcome.status == 0, outcome.err


def test_what_cannot_be_started_from_is_refused(bnnrun, tmp_path):
    assert bnnrun("train", *TINY, "hydra.run.dir=first").status == 0
    (tmp_path / "cut.pt").write_bytes((tmp_path / "first" / "best.pt").read_bytes()[:500])
    (tmp_path / "empty").mkdir()
    torch.save({"x": 1}, tmp_path / "other.pt")
    for words, named in (
        (["init=first", "arch.width=16"], ["init=first: fc1 weight", "(8, 64)", "(16, 64)"]),
        (["init=first", "arch.depth=2"], ["fc3 weight is (8, 8)", "(10, 8) in this network"]),
        (["init=first", "arch.depth=4"], ["fc4 weight", "(10, 8)", "(8, 8)"]),
        (["init=cut.pt"], ["cut.pt: not a whole network or checkpoint"]),
        (["init=other.pt"], ["other.pt: not a network or checkpoint"]),
        (["init=nowhere"], ["nowhere: no such network or checkpoint"]),
        (["init=empty"], ["init=empty: no run folder"]),
    ):
        assert_refused(bnnrun("train", *TINY, *words, "hydra.run.dir=second"), *named)


def test_a_run_resumed_reads_the_first_weights_no_more(bnnrun, tmp_path, elsewhere, monkeypatch):
    assert bnnrun("train", *TINY, "hydra.run.dir=first").status == 0
    assert bnnrun("train", *TINY, "init=first", "hydra.run.dir=second").status == 0
    (tmp_path / "first").rename(tmp_path / "gone")
    assert bnnrun("train", "resume=second").status == 0
    assert bnnrun("train", "resume=second", "init=./first").status == 0
    monkeypatch.chdir(elsewhere)
    outcome = bnnrun("train", "resume=../second")
    assert outcome.status == 0, outcome.err
    outcome = bnnrun("train", "resume=../second", "init=other")
    assert_refused(outcome, "init=other", f"began from {tmp_path}/first")
    outcome = bnnrun("train", "resume=../gone", "init=other")
    assert_refused(outcome, "init=other", "began from weights of its own")
    assert all("init" in record["details"] for record in records(tmp_path)[1:])


def test_a_sweep_skips_what_started_from_the_same_weights_alone(bnnrun, tmp_path):
    assert bnnrun("train", *TINY, "hydra.run.dir=first").status == 0
    words = ("train", "-m", *TINY, "init=first")
    assert "done" in bnnrun(*words).out
    assert "skipped" in bnnrun(*words).out
    assert "skipped" not in bnnrun("train", "-m", *TINY, "init=first", "optimizer.lr=0.01").out
    assert bnnrun("train", *TINY, "seed=1", "hydra.run.dir=first", "overwrite=true").status == 0
    outcome = bnnrun(*words, "overwrite=true")
    assert outcome.status == 0, outcome.err
    hashes = [record["config"].get("init") for record in records(tmp_path)]
    assert len(set(filter(None, hashes))) == 2


def test_such_a_run_has_no_curve_and_differs_from_its_experiment(bnnrun, tmp_path, of_conf):
    words = ("experiment=digits_binary", "arch.width=512", "trainer.epochs=1", "threads=1")
    assert bnnrun("train", *words, "hydra.run.dir=first").status == 0
    assert bnnrun("train", *words, "init=first", "hydra.run.dir=second").status == 0
    first, second = sorted(
        collect(tmp_path / "results").records, key=lambda record: "init" in record.config
    )
    (experiment,) = [e for e in of_conf if e.name == "digits_binary"]
    assert not any("init" in str(each) for each in differences(first.config, experiment))
    assert any(str(each).startswith("init=") for each in differences(second.config, experiment))
    assert drawable([second], of_conf) == []
    assert bnnrun("report").status == 0


def test_every_place_is_marked_as_one():
    """A new setting that names a file is found again by resume=."""
    known = {"cell", "name"}
    for verb in VERBS.values():
        for key, kind in keys_of(verb).items():
            if not (kind.is_place or kind.is_template or key.rpartition(".")[2] in known):
                assert (verb.name, key) == ("data", "sets")
