"""What stands around a shared sweep: its start, its plan, ranks, GPUs, launchers' defaults."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from digit_runs import assert_refused
from hydra import compose
from sweeps import rows

from bnnrun.cli import gpus
from bnnrun.cli.compose import checked_config, hydra_session
from bnnrun.cli.launchers import jobs_on_a_machine
from bnnrun.cli.ranks import STARTERS, refuse_ranks
from bnnrun.cli.start import FOLDER, join
from bnnrun.cli.verbs import VERBS
from bnnrun.errors import InputError
from bnnrun.lock import locked
from bnnrun.machine import cores
from bnnrun.train import STATE
from bnnrun.train.interrupt import StopRequest, stop_request

TINY = ("train", "-m", "experiment=digits_binary", "arch.width=8", "threads=1", "trainer.epochs=1")


# ---- one start of a line ------------------------------------------------------------------------


def test_processes_that_overlap_belong_to_one_start(tmp_path):
    with join(tmp_path, "a line") as first:
        with join(tmp_path, "a line") as second, join(tmp_path, "another line") as other:
            assert second.name == first.name != other.name
            assert second.stop != first.stop
        with join(tmp_path, "a line") as third:
            assert third.name == first.name
    with join(tmp_path, "a line") as later:
        assert later.name != first.name
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_start_whose_processes_died_is_over(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from bnnrun.cli.start import join\n"
        "with join(Path(sys.argv[1]), 'a line') as start:\n"
        "    print(start.name, flush=True)\n"
        "    os._exit(9)"
    )
    words = [sys.executable, "-c", code, tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert len(list((tmp_path / FOLDER).iterdir())) == 1, done.stderr
    with join(tmp_path, "a line") as start:
        assert start.name != done.stdout.strip()


def test_tasks_of_a_slurm_array_are_one_start(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")
    names = set()
    for _ in range(2):
        with join(tmp_path, "a line") as start:
            names.add(start.name)
    assert len(names) == 1


def test_a_job_that_failed_is_tried_again_by_the_next_start_alone(bnnrun):
    words = (*TINY, "trainer.batch_size=5000,100")
    line = " ".join(["bnnrun", *words])
    with join(Path("outputs/sweeps"), line):
        first, left = bnnrun(*words), left_by_jobs()
        again, left_again = bnnrun(*words), left_by_jobs()
    later, left_later = bnnrun(*words), left_by_jobs()
    for outcome in (first, again, later):
        assert outcome.status == 2
        assert "job 0 failed: trainer.batch_size=5000: " in outcome.err
    assert [name for _, name, _ in rows(first.out)] == ["failed", "done"]
    assert [name for _, name, _ in rows(again.out)] == ["failed", "done"]
    assert [name for _, name, _ in rows(later.out)] == ["failed", "skipped"]
    assert len(left) == 2
    assert left_again == left  # no job ran
    assert left_later != left


def left_by_jobs():
    """When each job wrote its outcome, by its file."""
    paths = Path("outputs/sweeps").glob("*/outcome.json")
    return {path: path.stat().st_mtime_ns for path in paths}


HOLD = """
import sys
from pathlib import Path
from bnnrun.lock import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_job_that_another_process_holds_is_waited_for(bnnrun, monkeypatch):
    assert bnnrun(*TINY, "seed=0,1").status == 0
    (folder,) = Path("outputs/sweeps").glob("digits_binary-s1-*")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    plan = bnnrun(*TINY, "seed=1", "overwrite=true", "plan=true")
    assert f"running (process {holder.pid} on " in plan.out
    sleep = time.sleep

    def let_go(seconds):
        if holder.poll() is None:
            holder.communicate(b"\n")
        sleep(seconds)

    monkeypatch.setattr("bnnrun.cli.progress.time.sleep", let_go)
    outcome = bnnrun(*TINY, "seed=0,1", "overwrite=true")
    assert outcome.status == 0, outcome.err
    assert f"waiting for job 1: process {holder.pid} on " in outcome.out
    assert [name for _, name, _ in rows(outcome.out)] == ["done", "done"]


# ---- plan=true ----------------------------------------------------------------------------------


def test_a_plan_lists_what_is_done_and_cut_off_and_writes_nothing(bnnrun, tmp_path):
    assert bnnrun(*TINY).status == 0
    before = sorted(tmp_path.rglob("*"))
    outcome = bnnrun(*TINY, "seed=0,1", "trainer.epochs=1,3", "plan=true")
    assert outcome.status == 0, outcome.err
    assert sorted(tmp_path.rglob("*")) == before
    lines = [line for line in outcome.out.splitlines() if "seed=" in line]
    assert len(lines) == 4
    assert "done: " in lines[0]
    assert all(" free " in line and "measured: digits_binary, 1,197 images" in line
               for line in lines[1:])  # fmt: skip
    assert "4 jobs, 3 to train: about 0.0 hours" in outcome.out


def test_a_job_that_was_cut_off_is_planned_from_its_checkpoint(bnnrun):
    assert bnnrun(*TINY).status == 0
    for path in Path("results/runs").iterdir():
        path.unlink()
    outcome = bnnrun(*TINY, "plan=true")
    assert "cut off after epoch 1" in outcome.out
    (folder,) = Path("outputs/sweeps").glob("digits_binary-*")
    (folder / STATE).write_bytes(b"")
    assert "will fail: " in bnnrun(*TINY, "plan=true").out


def test_the_full_grid_of_table_1_is_planned(bnnrun):
    words = ("train", "-m", "experiment=glob(table1_*)", "seed=0,1,2", "device=cpu", "plan=true")
    outcome = bnnrun(*words, f"results_dir={Path(__file__).parents[2] / 'results'}")
    assert outcome.status == 0, outcome.err
    lines = [line for line in outcome.out.splitlines() if "experiment=table1_" in line]
    assert len(lines) == 36
    folders = {word for line in lines for word in line.split() if word.startswith("table1_")}
    assert len(folders) > 36  # each job's, and the records that hours follow from
    assert sum("measured: " in line or "scaled by MACs: " in line for line in lines) == 36
    assert not Path("outputs").exists()


def test_where_no_record_tells_hours_stay_open(bnnrun):
    outcome = bnnrun(*TINY, "plan=true")
    assert "no record on device=" in outcome.out
    assert "1 job, 1 to train: about 0.0 hours, one at a time, and 1 of which no" in outcome.out


def test_a_plan_is_of_a_sweep(bnnrun):
    assert_refused(bnnrun("train", "dataset=digits", "plan=true"), "plan=true", "add -m")


# ---- ranks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STARTERS)
def test_a_single_run_is_refused_to_starters_of_ranks(bnnrun, monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, "2")
    outcome = bnnrun("train", "dataset=digits")
    assert_refused(outcome, STARTERS[name], f"{name}=2", "train -m", "hydra/launcher=joblib")
    assert list(tmp_path.iterdir()) == []
    assert bnnrun("train", "dataset=digits", "--cfg", "job").status == 0


def test_one_process_is_no_rank_and_neither_is_a_task_of_an_array():
    refuse_ranks("train", {"WORLD_SIZE": "1", "SLURM_NTASKS": "4", "SLURM_ARRAY_TASK_ID": "3"})
    with pytest.raises(InputError):
        refuse_ranks("train", {"SLURM_STEP_NUM_TASKS": "4"})


def test_ranks_share_a_sweep(bnnrun, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert bnnrun(*TINY).status == 0


# ---- launchers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("launcher", "key", "value"),
    [
        ("joblib", "n_jobs", cores()),
        ("submitit_local", "gpus_per_node", 0),
        ("submitit_slurm", "gpus_per_node", 1),
    ],
)
def test_our_defaults_lie_over_the_launchers_own(bnnrun, launcher, key, value):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")

    def setting(*words):
        typed = [f"hydra/launcher={launcher}", "device=cpu", *words]
        lines = checked_config(VERBS["train"], typed, multirun=True).words
        with hydra_session():
            return compose("train", lines, return_hydra_config=True).hydra.launcher[key]

    assert setting() == value
    assert setting(f"hydra.launcher.{key}=7") == 7
    assert_refused(
        bnnrun(*TINY, f"hydra/launcher={launcher}", "hydra.launcher.nosuch=7"),
        "hydra.launcher.nosuch",
    )


def test_jobs_of_one_machine_divide_its_cores():
    class Joblib:
        joblib = {"n_jobs": 4}  # noqa: RUF012

    assert jobs_on_a_machine("joblib", Joblib(), 6) == 4
    assert jobs_on_a_machine("joblib", Joblib(), 3) == 3
    Joblib.joblib = {"n_jobs": -1}
    assert jobs_on_a_machine("joblib", Joblib(), 1000) == cores()
    assert jobs_on_a_machine("submitit_slurm", None, 6) == 1
    assert jobs_on_a_machine("ray", None, 6) == 1


def test_a_task_of_slurm_has_the_cores_that_it_was_given(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert cores() == 1


def test_each_process_takes_a_gpu_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(gpus, "visible", lambda: ["4", "5"])
    monkeypatch.setattr(gpus, "private_folder", lambda: tmp_path)
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    with locked(tmp_path / "gpu-4"):
        gpus.take_one.__wrapped__()
    assert os.environ[gpus.VISIBLE] == "5"
    gpus._held.close()
    gpus.take_one.__wrapped__()
    assert os.environ[gpus.VISIBLE] == "4"
    gpus._held.close()
    monkeypatch.delenv(gpus.VISIBLE)


# ---- signals ------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_a_signal_asks_for_an_end_and_goes_on_to_the_handler_before(name):
    number, received = getattr(signal, name), []
    before = signal.signal(number, lambda number, frame: received.append(number))
    try:
        with stop_request() as stop:
            assert not stop
            os.kill(os.getpid(), number)
            assert stop and not received
        assert received == [number]
    finally:
        signal.signal(number, before)


def test_a_worker_is_asked_through_its_launcher():
    asked = []
    with stop_request(StopRequest(lambda: bool(asked))) as stop:
        assert not stop
        asked.append(True)
        assert stop
