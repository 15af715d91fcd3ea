"""A sweep that is cut off, fails in part or is typed again."""

import json
import os
import re
import signal
import time
from pathlib import Path

import made_up
import pytest
import torch
from forked import start
from sweeps import wait_for

from bnnrun.cli.verbs import Verb
from bnnrun.train import checkpoint
from bnnrun.train.interrupt import stop_request
from bnnrun.train.trainer import Trainer

# The reference: processes start the sooner without compiled kernels.
TINY = ("experiment=digits_binary", "arch.width=8", "threads=1", "trainer.engine=reference")
SWEEP = ("train", "-m", *TINY)


def record_paths() -> list[Path]:
    return sorted(Path("results/runs").glob("*.json"))


def outcomes(out: str) -> list[str]:
    """Of each job, as the table that ends a sweep has them."""
    return [row[0] for row in rows(out)]


def rows(out: str) -> list[tuple[str, str]]:
    """(outcome, test error) of each job."""
    table = out[out.index("outcome") :].replace("outcome", "", 1)
    return re.findall(r"(done|resumed|skipped|failed|stopped) +([\d.]*)", table)


def folder(seed: int) -> Path:
    (folder,) = Path("outputs/sweeps").glob(f"digits_binary-s{seed}-*")
    return folder


def assert_same_networks(ours: Path, theirs: Path) -> None:
    for name, kind in ((checkpoint.STATE, "checkpoint"), (checkpoint.BEST, "network")):
        a, b = (checkpoint.load(place / name, kind)["network"] for place in (ours, theirs))
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), key


def test_jobs_with_a_record_are_skipped_without_loading_what_trains(bnnrun, monkeypatch):
    words = (*SWEEP, "trainer.epochs=1")
    first = bnnrun(*words, "seed=0,1")
    assert first.status == 0, first.err
    assert outcomes(first.out) == ["done", "done"]
    before = record_paths()

    def never(verb):
        raise AssertionError("a finished job was begun")

    with monkeypatch.context() as patched:
        patched.setattr(Verb, "load", never)
        began = time.perf_counter()
        second = bnnrun(*words, "seed=1,0")
        took_s = time.perf_counter() - began
    assert second.status == 0, second.err
    assert rows(second.out) == [("skipped", error) for _, error in reversed(rows(first.out))]
    for path in before:
        assert f"skipped: its record is {path}" in second.out
    assert record_paths() == before
    assert took_s < 20  # composing; a second or two on an idle machine

    third = bnnrun(*words, "seed=range(3)")
    assert outcomes(third.out) == ["skipped", "skipped", "done"]


def test_what_changes_the_result_is_trained_and_what_does_not_is_skipped(bnnrun):
    words = (*SWEEP, "trainer.epochs=1")
    assert bnnrun(*words).status == 0
    for changed in ("optimizer.lr=0.01", "experiment=digits_float", "results_dir=elsewhere"):
        assert outcomes(bnnrun(*words, changed).out) == ["done"], changed
    # 0.003 is what the data set gives; a record names the device that device=auto took.
    for same in ("optimizer.lr=0.003", "threads=2", "debug=true", "device=auto"):
        assert outcomes(bnnrun(*words, same).out) == ["skipped"], same


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device would train it")
def test_a_record_of_another_device_is_not_this_one(bnnrun):
    assert bnnrun(*SWEEP, "trainer.epochs=1").status == 0
    outcome = bnnrun(*SWEEP, "trainer.epochs=1", "device=cuda")
    assert outcome.status == 2
    assert "device=cuda" in outcome.err


def test_a_record_on_other_data_is_not_this_one(bnnrun, tmp_path):
    made_up.write_mnist(tmp_path / "one", train=300, test=50)
    made_up.write_mnist(tmp_path / "two", train=301, test=50)
    words = ["train", "-m", "dataset=mnist", "dataset.verify=off", "dataset.validation=50"]
    words += ["arch.width=8", "trainer.epochs=1"]
    assert bnnrun(*words, "dataset.root=one").status == 0
    (tmp_path / "one").rename(tmp_path / "moved")
    outcome = bnnrun(*words, "dataset.root=moved,two")
    assert outcome.status == 0, outcome.err
    assert outcomes(outcome.out) == ["skipped", "done"]


def test_again_trains_what_has_its_record(bnnrun):
    words = (*SWEEP, "trainer.epochs=2", "seed=0,1")
    assert bnnrun(*words).status == 0
    outcome = bnnrun(*words, "overwrite=true")
    assert outcome.status == 0, outcome.err
    assert outcomes(outcome.out) == ["done", "done"]
    assert "epoch 1/2" in outcome.out
    records = [json.loads(path.read_text()) for path in record_paths()]
    assert [record["seed"] for record in records] == [0, 0, 1, 1]
    assert all("overwrite" not in record["command"] for record in records)
    assert records[0]["value"] == records[1]["value"]


def test_without_m_a_run_is_run_again(bnnrun):
    words = ("train", *TINY, "trainer.epochs=1")
    assert bnnrun(*words).status == 0
    outcome = bnnrun(*words)
    assert "skipped" not in outcome.out
    assert len(record_paths()) == 2


@pytest.mark.parametrize("damage", ["cut", "altered"])
def test_a_damaged_record_is_not_a_finished_job(bnnrun, damage):
    words = (*SWEEP, "trainer.epochs=1", "seed=0,1")
    assert bnnrun(*words).status == 0
    path = record_paths()[0]
    text = path.read_text()
    path.write_text(text[:200] if damage == "cut" else text.replace('"value": ', '"value": 1'))
    # Its run came to its end, so that it is only written down again; the other is as it was.
    outcome = bnnrun(*words)
    assert outcomes(outcome.out) == ["resumed", "skipped"]
    assert "epoch 1/1" not in outcome.out
    # Beside the damaged one, or in its place where both are of the same second.
    assert outcomes(bnnrun(*words).out) == ["skipped", "skipped"]


def test_a_failed_job_is_told_at_once_and_listed_at_the_end(bnnrun):
    words = (*SWEEP, "trainer.epochs=1", "optimizer.lr=0.003,1e30")
    outcome = bnnrun(*words, "trainer.batch_size=5000,100")
    assert outcome.status == 1, "a loss that is no number is no wrong input"
    assert outcomes(outcome.out) == ["failed", "done", "failed", "failed"]
    errors, listed = outcome.err.splitlines()[:3], outcome.err.splitlines()[3:]
    assert [line[:21] for line in errors] == [f"bnnrun: job {i} failed:" for i in (0, 2, 3)]
    assert [line[:21] for line in listed] == [line[:21] for line in errors]
    assert "trainer.batch_size=5000: more than the 1,197" in errors[0]
    assert "optimizer.lr=1e+30 trainer.batch_size=100: the training loss" in listed[2]
    (path,) = record_paths()
    assert json.loads(path.read_text())["config"]["trainer"]["batch_size"] == 100


def test_where_all_that_failed_was_wrong_input_the_status_is_2(bnnrun):
    outcome = bnnrun(*SWEEP, "trainer.epochs=1", "trainer.batch_size=5000,100")
    assert outcome.status == 2
    assert outcomes(outcome.out) == ["failed", "done"]


def test_data_that_is_not_there_costs_its_own_jobs_alone(bnnrun):
    words = ("train", "-m", "dataset=mnist,digits", "dataset.root=nowhere", "arch.width=8")
    outcome = bnnrun(*words, "trainer.epochs=1")
    assert outcome.status == 2
    assert outcomes(outcome.out) == ["failed", "done"]
    assert "nowhere/MNIST/raw/train-images-idx3-ubyte.gz" in outcome.err


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, marks=pytest.mark.exhaustive),
        signal.SIGINT,
        pytest.param(signal.SIGUSR1, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_a_sweep_cut_off_goes_on_to_the_same_weights(bnnrun, number):
    words = (*SWEEP, "trainer.epochs=15", "seed=0,1,2")
    process = start(*words)
    state = f"digits_binary-s1-*/{checkpoint.STATE}"
    wait_for(lambda: list(Path("outputs/sweeps").glob(state)), process)
    process.send_signal(number)
    out, err = process.communicate()
    if number is signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 130
        assert outcomes(out) == ["done", "stopped"]
        (line,) = err.splitlines()
        assert f"bnnrun train resume={folder(1)}; " in line
        assert line.endswith(f"whole sweep: bnnrun {' '.join(words)}")
    (path,) = record_paths()
    assert json.loads(path.read_text())["seed"] == 0

    outcome = bnnrun(*words)
    assert outcome.status == 0, outcome.err
    assert outcomes(outcome.out) == ["skipped", "resumed", "done"]
    assert f"resumed {folder(1)} after epoch" in outcome.out
    assert [json.loads(path.read_text())["seed"] for path in record_paths()] == [0, 1, 2]
    assert (
        bnnrun("train", *TINY, "trainer.epochs=15", "seed=1", "hydra.run.dir=through").status == 0
    )
    assert_same_networks(folder(1), Path("through"))


def test_ctrl_c_in_the_last_epoch_of_a_job_stops_the_sweep(bnnrun, monkeypatch):
    finish = Trainer._finish_epoch

    def interrupted(trainer):
        finish(trainer)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

    monkeypatch.setattr(Trainer, "_finish_epoch", interrupted)
    outcome = bnnrun(*SWEEP, "trainer.epochs=1", "seed=0,1")
    assert outcome.status == 130
    assert outcomes(outcome.out) == ["done"]
    assert "stopped before job 1" in outcome.err
    assert len(record_paths()) == 1


def test_a_stop_request_within_another_is_the_same():
    with stop_request() as outer, stop_request() as inner:
        assert inner is outer


def test_a_checkpoint_that_cannot_be_read_fails_its_job_by_name(bnnrun):
    words = (*SWEEP, "trainer.epochs=1", "seed=0,1")
    assert bnnrun(*words).status == 0
    record_paths()[0].unlink()
    state = folder(0) / checkpoint.STATE
    state.write_bytes(state.read_bytes()[:100])
    outcome = bnnrun(*words)
    assert outcome.status == 2
    assert f"{state}: not a whole checkpoint" in outcome.err
    assert "delete it to begin this job anew" in outcome.err
    state.unlink()
    assert outcomes(bnnrun(*words).out) == ["done", "skipped"]


def test_a_sweep_finds_its_folders_itself(bnnrun):
    outcome = bnnrun(*SWEEP, "resume=outputs/sweeps/x")
    assert outcome.status == 2
    assert "resume=outputs/sweeps/x: with -m each job finds its own folder" in outcome.err
