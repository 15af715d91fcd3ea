"""One sweep by every launcher and by several processes; killed, stopped and interrupted."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from forked import start
from sweeps import errors_by_batch_size, holders, records, rows, wait_for

from bnnrun.machine import cores
from bnnrun.train import STATE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and locks of POSIX")

# The reference: processes start the sooner without compiled kernels.
TINY = ("experiment=digits_binary", "arch.width=8", "trainer.engine=reference")
SIZES = (100, 50, 30)
# One more job fails by its settings.
LINE = (
    "train", "-m", *TINY,
    f"trainer.batch_size={','.join(map(str, SIZES))},5000",
)  # fmt: skip
LONG = ("train", "-m", *TINY, "threads=1", "seed=0,1,2")


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(scope="module")
def basic(tmp_path_factory):
    """(rows, test errors) of the sweep by Hydra's basic launcher, one job after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("basic"))
        process = start(*LINE, "trainer.epochs=1")
        out, err = process.communicate()
        assert process.returncode == 2, err
        return rows(out), errors_by_batch_size()


def assert_same(basic, process, out, err):
    assert process.returncode == 2, err
    assert (rows(out), errors_by_batch_size()) == basic
    (listed,) = [
        line for line in err.splitlines() if f"job {len(SIZES)} failed: trainer.batch" in line
    ][1:]
    assert "more than the 1,197 training images" in listed


def test_the_basic_launcher_runs_them_all(basic):
    table, errors = basic
    assert [outcome for _, outcome, _ in table] == ["done"] * len(SIZES) + ["failed"]
    assert tuple(errors) != () and set(errors) == set(SIZES)


@pytest.mark.parametrize(("launcher", "package"), [("joblib",) * 2, ("submitit_local", "submitit")])
def test_every_launcher_comes_to_the_same(basic, launcher, package):
    pytest.importorskip(f"hydra_plugins.hydra_{package}_launcher")
    process = start(*LINE, "trainer.epochs=1", f"hydra/launcher={launcher}")
    out, err = process.communicate()
    assert_same(basic, process, out, err)
    for number in range(len(SIZES) + 1):
        assert f"job {number}: trainer.batch_size=" in out
        assert f"job {number} {'failed' if number == len(SIZES) else 'done'}" in out
    assert "; 0 jobs left" in out and "epoch 1/1" not in out
    jobs = len(SIZES) + 1
    at_once = min(jobs, cores()) if launcher == "joblib" else jobs
    assert {r["details"]["threads"] for r in records()} == {max(1, cores() // at_once)}


def test_three_processes_of_one_line_share_the_jobs(basic):
    processes = [start(*LINE, "trainer.epochs=1") for _ in range(3)]
    outputs = [process.communicate() for process in processes]
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert_same(basic, process, out, err)
    done = [sum(line.startswith("record: ") for line in out.splitlines()) for out, _ in outputs]
    assert sum(done) == len(SIZES)


def test_the_jobs_of_a_process_that_is_killed_are_done_by_the_other():
    words = (*LONG, "trainer.epochs=12")
    killed, other = start(*words), start(*words)
    wait_for(lambda: killed.pid in holders().values(), killed)
    killed.kill()
    killed.communicate()
    out, err = other.communicate()
    assert other.returncode == 0, err
    assert {outcome for _, outcome, _ in rows(out)} <= {"done", "resumed"}
    assert sorted(r["seed"] for r in records()) == [0, 1, 2]


def test_a_process_stopped_for_longer_than_a_claim_lasts_leaves_its_job_to_the_other():
    words = (*LONG, "trainer.epochs=12")
    stopped = start(*words, place="one machine")
    wait_for(lambda: list(Path("outputs/sweeps").glob(f"digits*/{STATE}")), stopped)
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        other = start(*words, place="another machine")
        wait_for(lambda: other.pid in holders().values(), other)
        theirs, err = other.communicate()
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    assert other.returncode == 0, err
    ours, err = stopped.communicate()
    assert stopped.returncode == 0, err
    assert "failed" not in ours + theirs
    for out in (ours, theirs):
        assert all(outcome in ("done", "resumed", "skipped") for _, outcome, _ in rows(out))
    assert [error for *_, error in rows(ours)] == [error for *_, error in rows(theirs)]
    assert sorted(r["seed"] for r in records()) == [0, 1, 2]


def test_workers_of_joblib_end_after_a_launcher_that_was_killed():
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = (*LONG, "trainer.epochs=12", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    process = start(*words)
    wait_for(lambda: len(holders()) == 2, process)
    process.kill()
    process.communicate()  # until the workers have ended, which hold its output too
    assert len(records()) == 2 and not holders()


def test_ctrl_c_has_the_workers_of_joblib_save():
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = (*LONG, "trainer.epochs=60", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    process = start(*words, group=True)
    wait_for(lambda: len(list(Path("outputs/sweeps").glob(f"digits*/{STATE}"))) == 2, process)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert time.monotonic() - began < 30
    assert [outcome for _, outcome, _ in rows(out)] == ["stopped", "stopped", "not begun"]
    assert "2 jobs stopped and saved; go on with the whole sweep: bnnrun train -m " in err
    assert not holders() and not records()

    process = start(*LONG, "trainer.epochs=60", "plan=true")
    out, _ = process.communicate()
    assert out.count("cut off after epoch") == 2 and out.count(" free ") == 1


def test_jobs_of_submitit_outlast_the_process_that_waits_for_them():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = (*LONG[:-1], "trainer.epochs=5000", "hydra/launcher=submitit_local")
    process = start(*words)
    wait_for(lambda: list(Path("outputs/sweeps").glob(f"digits*/{STATE}")), process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    (pid,) = holders().values()
    os.kill(pid, signal.SIGTERM)  # as the line says
    out, err = process.communicate()  # the job holds this output too
    assert [outcome for _, outcome, _ in rows(out)] == ["running"]
    assert "1 job left to submitit_local: `pgrep -af submitit` shows them, `kill`" in err
    until = time.monotonic() + 60
    while holders() and time.monotonic() < until:
        time.sleep(0.1)
    (log,) = Path("outputs/sweeps").glob("digits*/outcome.json")
    assert json.loads(log.read_text())["name"] == "stopped"
