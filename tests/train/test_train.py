"""The loop: it learns, picks by validation, saves, and goes on exactly where it stopped."""

import csv
import json
import os
import signal
import threading
import time

import made_up
import numpy as np
import pytest
import torch
from command import configure

from bnnrun.data import load
from bnnrun.errors import InputError, RunError, Stopped
from bnnrun.files import write_atomically
from bnnrun.train import checkpoint
from bnnrun.train.interrupt import StopRequest, stop_request
from bnnrun.train.trainer import Trainer

SMALL = ("dataset=digits", "arch.width=32", "trainer.epochs=4", "threads=1")


def make_trainer(folder, *words) -> Trainer:
    typed = configure("train", *SMALL, *words)
    return Trainer(typed, load(typed.dataset), torch.device("cpu"), folder)


def weights(trainer) -> list[np.ndarray]:
    return [t.detach().numpy().copy() for t in trainer.network.state_dict().values()]


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("experiment", "at_most"), [("digits_binary", 4.0), ("digits_float", 3.0)])
def test_seeds_learn_the_digits(bnnrun, tmp_path, experiment, at_most):
    outcome = bnnrun(
        "train", "-m", f"experiment={experiment}", "seed=0,1", "trainer.epochs=12",
        "hydra.sweep.dir=runs",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    records = [json.loads(p.read_text()) for p in (tmp_path / "results/runs").glob("*.json")]
    assert sorted(r["seed"] for r in records) == [0, 1]
    assert np.mean([r["value"] for r in records]) <= at_most
    for r in records:
        assert r["experiment"] == experiment
        assert r["details"]["best_on_test_error_pct"] <= r["value"]
        assert set(r["details"]["arithmetic"]) == {"fc1", "fc2", "fc3", "fc4"}
        assert r["data"]["test"] == 400


def test_the_latest_of_equal_epochs_is_picked(tmp_path):
    trainer = make_trainer(tmp_path, "trainer.epochs=12")
    trainer.run(StopRequest())
    errors = [row["valid_error_pct"] for row in trainer.history]
    latest = max(i for i, error in enumerate(errors) if error == min(errors))
    assert trainer.best["epoch"] == latest + 1
    saved = checkpoint.load(tmp_path / checkpoint.BEST, "network")
    assert saved["row"]["epoch"] == latest + 1


def test_the_picked_network_has_the_error_that_was_recorded(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.run(StopRequest())
    other = make_trainer(tmp_path, "seed=5")
    saved = checkpoint.load(tmp_path / checkpoint.BEST, "network")
    other.network.load_state_dict(saved["network"])
    _, wrong, _ = other.evaluate(other.dataset.test)
    assert 100 * wrong / 400 == saved["row"]["test_error_pct"]


def test_metrics_hold_a_row_an_epoch(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.run(StopRequest())
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    losses = [float(row["train_loss"]) for row in rows]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("stop_after", [1, 23, 24, 40, 69])
def test_a_run_stopped_at_any_step_and_resumed_gives_the_same_weights(tmp_path, stop_after):
    """Steps 23 and 69 end an epoch of 1,197 // 50 = 23 steps; dropout depends on the step."""
    through = make_trainer(tmp_path / "through")
    through.run(StopRequest())

    stopped = make_trainer(tmp_path / "stopped")
    stop, steps = StopRequest(), 0
    step = stopped.engine.step

    def counted(pixels, labels):
        nonlocal steps
        steps += 1
        stop.number = signal.SIGINT if steps == stop_after else 0
        return step(pixels, labels)

    stopped.engine.step = counted
    with pytest.raises(Stopped, match="resume="):
        stopped.run(stop)
    resumed = make_trainer(tmp_path / "stopped")
    resumed.restore()
    assert resumed.epoch * 23 + resumed.step == stop_after
    resumed.run(StopRequest())
    assert_same(weights(through), weights(resumed))
    ours, theirs = ([{k: v for k, v in row.items() if not k.endswith("_s")} for row in t.history]
                    for t in (through, resumed))  # fmt: skip
    assert ours == theirs


def test_ctrl_c_saves_and_resume_goes_on(bnnrun, tmp_path):
    words = ["train", *SMALL, "trainer.epochs=20", "hydra.run.dir=run"]

    def interrupt():
        while not (tmp_path / "run" / checkpoint.STATE).exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    outcome = bnnrun(*words)
    thread.join()
    assert outcome.status == 130
    assert "bnnrun train resume=run" in outcome.err
    assert not (tmp_path / "results" / "runs").exists() or not list(
        (tmp_path / "results" / "runs").iterdir()
    )
    outcome = bnnrun("train", "resume=run")
    assert outcome.status == 0, outcome.err
    assert "resumed run after epoch" in outcome.out
    (record,) = (tmp_path / "results" / "runs").glob("*.json")
    assert json.loads(record.read_text())["details"]["epochs"] == 20

    through = make_trainer(tmp_path / "through", "trainer.epochs=20")
    through.run(StopRequest())
    resumed = checkpoint.load(tmp_path / "run" / checkpoint.STATE, "checkpoint")["network"]
    assert_same(weights(through), [t.numpy() for t in resumed.values()])


def test_a_run_is_not_overwritten_unasked(bnnrun, tmp_path):
    words = ["train", *SMALL, "trainer.epochs=1", "hydra.run.dir=run"]
    assert bnnrun(*words).status == 0
    files = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.pt")}
    outcome = bnnrun(*words, "seed=1")
    assert outcome.status == 2
    assert len(outcome.err.splitlines()) == 1
    for text in (f"run: holds a run's {checkpoint.STATE}", "resume=run", "overwrite=true"):
        assert text in outcome.err
    assert {path: path.read_bytes() for path in files} == files
    assert bnnrun(*words, "seed=1", "overwrite=true").status == 0
    assert all(path.read_bytes() != content for path, content in files.items())


def test_resuming_with_other_settings_is_refused(bnnrun):
    assert bnnrun("train", *SMALL, "trainer.epochs=1", "hydra.run.dir=run").status == 0
    outcome = bnnrun("train", "resume=run", "optimizer.lr=0.5")
    assert outcome.status == 2
    assert "optimizer.lr=0.003, not optimizer.lr=0.5" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_resuming_on_other_data_is_refused(bnnrun, tmp_path):
    made_up.write_mnist(tmp_path / "one", train=300, test=50)
    made_up.write_mnist(tmp_path / "two", train=301, test=50)
    words = ["dataset=mnist", "dataset.verify=off", "dataset.validation=50", "arch.width=8"]
    words += ["trainer.epochs=1", "dataset.root=one", "hydra.run.dir=run"]
    assert bnnrun("train", *words).status == 0
    outcome = bnnrun("train", "resume=run", "dataset.root=two")
    assert outcome.status == 2
    assert "images." in outcome.err
    assert bnnrun("train", "resume=run").status == 0


def damage_cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def damage_byte(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def damage_empty(content: bytes) -> bytes:
    return b""


def damage_text(content: bytes) -> bytes:
    return b"not a checkpoint\n"


@pytest.mark.parametrize("damage", [damage_cut, damage_byte, damage_empty, damage_text])
def test_a_corrupt_checkpoint_is_refused_by_name(bnnrun, tmp_path, damage):
    assert bnnrun("train", *SMALL, "trainer.epochs=1", "hydra.run.dir=run").status == 0
    path = tmp_path / "run" / checkpoint.STATE
    path.write_bytes(damage(path.read_bytes()))
    outcome = bnnrun("train", "resume=run")
    assert outcome.status == 2
    assert len(outcome.err.splitlines()) == 1
    assert f"run/{checkpoint.STATE}" in outcome.err
    if damage is damage_byte:
        assert "does not have its checksum" in outcome.err


def test_a_pickle_in_disguise_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    path = tmp_path / "checkpoint.pt"
    torch.save({"kind": "checkpoint", "format": 1, "trap": Trap()}, path)
    with pytest.raises(InputError, match=r"checkpoint\.pt: not a checkpoint of bnnrun"):
        checkpoint.load(path, "checkpoint")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "network", "format": 1}, "not a checkpoint"),
        ({"kind": "checkpoint", "format": 99}, "format 99, expected 2"),
        ([1, 2], "not a checkpoint"),
    ],
    ids=str,
)
def test_other_files_of_torch_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        checkpoint.load(tmp_path / "x.pt", "checkpoint")


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path)
    trainer.save()
    before = (tmp_path / checkpoint.STATE).read_bytes()

    def full(content, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"no space left on the disk.*kept"):
        trainer.save()
    assert (tmp_path / checkpoint.STATE).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.STATE]


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_atomically(path, lambda file: file.write(b"one"))
    write_atomically(path, lambda file: file.write(b"two"))
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.engine.step = lambda pixels, labels: torch.tensor(float("nan"))
    with pytest.raises(RunError, match=r"loss of epoch 1 is nan.*optimizer\.lr"):
        trainer.run(StopRequest())


def test_signals_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with stop_request() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stop
    assert signal.getsignal(signal.SIGINT) is before


def test_another_seed_is_another_run_and_the_same_seed_the_same(tmp_path):
    runs = []
    for i, seed in enumerate([1, 1, 2]):
        trainer = make_trainer(tmp_path / str(i), f"seed={seed}", "trainer.epochs=1")
        trainer.run(StopRequest())
        runs.append(weights(trainer))
    assert_same(runs[0], runs[1])
    assert any((a != b).any() for a, b in zip(runs[0], runs[2], strict=True))
