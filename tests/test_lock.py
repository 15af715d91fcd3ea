"""The one lock: one process of many, on one machine or several; one that lost it notices."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bnnrun import lock
from bnnrun.errors import RunError
from bnnrun.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from bnnrun import lock

lock.BEAT_S, lock.PATIENCE_S = 0.1, 0.2
if len(sys.argv) > 2:
    lock._place = lambda: sys.argv[2]
with lock.locked(Path(sys.argv[1])) as held:
    print("held", flush=True)
    sys.stdin.readline()
    try:
        held.check()
        print("still", flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
"""


@pytest.fixture
def quick(monkeypatch):
    """Seconds for minutes."""
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    monkeypatch.setattr(lock, "STALE_S", 1.5)
    monkeypatch.setattr(lock, "PATIENCE_S", 0.2)


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds the folder, as from another machine if that is named."""
    started = []

    def start(*place):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, tmp_path, *place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def answer(process):
    """What the holder says of its lock when it is asked."""
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def test_it_is_held_within_the_block_and_let_go_behind_it(tmp_path):
    folder = tmp_path / "new" / "run"
    with locked(folder) as held:
        held.check()
        with pytest.raises(RunError, match=rf"at work there \(process {os.getpid()} on .*\); wait"):
            locked(folder).__enter__()
    assert list(folder.iterdir()) == []
    with pytest.raises(KeyError), locked(folder):
        raise KeyError
    assert list(folder.iterdir()) == []


def test_one_thread_of_many_has_it(tmp_path):
    inside, most = [], []

    def work(_):
        while True:
            try:
                with locked(tmp_path):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.002)
                    inside.pop()
                    return
            except RunError:
                time.sleep(0.001)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert max(most) == 1 and len(most) == 40


def test_another_process_is_refused_while_the_holder_lives(tmp_path, holder):
    process = holder()
    with pytest.raises(RunError, match=f"process {process.pid} on "), locked(tmp_path):
        pass
    assert answer(process) == "still\n"


@pytest.mark.parametrize("how", ["killed", "a zombie", "another process has its number"])
def test_a_claim_is_stale_at_once_where_its_process_is_gone(tmp_path, holder, how):
    process = holder()
    if how == "another process has its number":
        path = tmp_path / lock.NAME
        path.write_text(json.dumps({**json.loads(path.read_text()), "started": "1"}))
    else:
        process.kill()
        if how == "killed":
            process.wait()
        else:
            time.sleep(0.2)
    began = time.monotonic()
    with locked(tmp_path) as held:
        held.check()
    assert time.monotonic() - began < 5


def take_over(folder, place, ready, results):
    lock.STALE_S, lock.BEAT_S, lock.PATIENCE_S = 1.0, 0.1, 0.2
    lock._place = lambda: place
    ready.wait()
    try:
        with locked(folder) as held:
            time.sleep(2.5)
            held.check()
            results.put("held")
    except RunError as error:
        results.put(str(error))


def test_of_many_that_find_a_stale_claim_one_takes_it(tmp_path, holder):
    """Those of its own machine at once and those of another, which wait to see no sign of life."""
    process = holder()
    process.kill()
    process.wait()
    context = multiprocessing.get_context("fork")
    ready, results = context.Event(), context.Queue()
    places = [lock._place()] * 3 + [f"other {i}" for i in range(3)]
    takers = [
        context.Process(target=take_over, args=(tmp_path, place, ready, results))
        for place in places
    ]
    for taker in takers:
        taker.start()
    ready.set()
    outcomes = [results.get(timeout=30) for _ in takers]
    for taker in takers:
        taker.join()
    assert outcomes.count("held") == 1, outcomes
    assert all("at work there" in each for each in outcomes if each != "held"), outcomes
    assert list(tmp_path.iterdir()) == []


def test_a_claim_of_another_machine_holds_while_it_changes(tmp_path, holder, quick):
    process = holder("another machine")
    messages = []
    with pytest.raises(RunError, match="at work there"), locked(tmp_path, messages.append):
        pass
    assert answer(process) == "still\n"


def test_a_process_that_was_stopped_and_goes_on_notices_that_it_lost_its_claim(
    tmp_path, holder, quick
):
    process = holder("another machine")
    os.kill(process.pid, signal.SIGSTOP)
    messages = []
    try:
        with locked(tmp_path, messages.append) as held:
            assert "looking for a sign of life" in messages[0]
            os.kill(process.pid, signal.SIGCONT)
            assert "took it over" in answer(process)
            assert process.wait(10) == 0
            held.check()  # the loser's end left the winner's claim where it is
    finally:
        os.kill(process.pid, signal.SIGCONT) if process.poll() is None else None


def test_a_claim_that_was_removed_is_noticed(tmp_path, quick):
    with locked(tmp_path) as held:
        (tmp_path / lock.NAME).unlink()
        with pytest.raises(RunError, match=r"\.run-lock was removed .* kept"):
            held.check()


def test_a_claim_out_of_its_place_for_a_moment_is_not_lost(tmp_path, quick):
    path = tmp_path / lock.NAME
    with locked(tmp_path) as held:
        path.rename(tmp_path / "aside")
        threading.Timer(0.05, lambda: (tmp_path / "aside").rename(path)).start()
        held.check()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": "x"}'])
def test_a_claim_that_nobody_finished_writing_goes_stale(tmp_path, quick, content):
    (tmp_path / lock.NAME).write_text(content)
    with locked(tmp_path, lambda line: None) as held:
        held.check()


def test_the_claim_names_its_holder_and_changes(tmp_path, quick):
    with locked(tmp_path):
        first = json.loads((tmp_path / lock.NAME).read_text())
        assert first["pid"] == os.getpid() and first["beat"] == 0
        time.sleep(0.5)
        later = lock._read(tmp_path / lock.NAME)
        assert later["beat"] > 0 and later["token"] == first["token"]


RUN = ("train", "dataset=digits", "arch.width=16", "threads=1", "trainer.epochs=1")


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "words",
    [
        (*RUN, "hydra.run.dir=run", "seed=1"),
        (*RUN, "hydra.run.dir=run", "seed=1", "overwrite=true"),
        ("train", "resume=run"),
        ("eval", "dataset=digits", "model=run/best.pt", "hydra.run.dir=run"),
    ],
)
def test_no_run_begins_in_a_folder_that_is_held(bnnrun, tmp_path, words):
    """Nor does Hydra write there: a run resumed later would find another's words."""
    assert bnnrun(*RUN, "hydra.run.dir=run").status == 0
    before = contents(tmp_path / "run")
    with locked(tmp_path / "run"):
        outcome = bnnrun(*words)
        assert outcome.status == 1 and "run: another process is at work there" in outcome.err
        after = contents(tmp_path / "run")
        after.pop(tmp_path / "run" / lock.NAME)
        assert after == before


def test_a_run_in_a_folder_that_holds_another_leaves_it_as_it_is(bnnrun, tmp_path):
    assert bnnrun(*RUN, "hydra.run.dir=run").status == 0
    before = contents(tmp_path / "run")
    for words in ((*RUN, "seed=1"), ("eval", "dataset=digits", "model=run/best.pt")):
        outcome = bnnrun(*words, "hydra.run.dir=run")
        assert outcome.status == 2 and "hydra.run.dir=" in outcome.err
        assert contents(tmp_path / "run") == before


def test_a_run_that_lost_its_folder_writes_no_checkpoint_and_no_record(bnnrun, tmp_path, quick):
    """As after a pause in which another machine took it over."""
    from bnnrun.train.trainer import Trainer

    step = Trainer._step

    def lose(trainer, indices):
        (trainer.folder / lock.NAME).unlink(missing_ok=True)
        return step(trainer, indices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", lose)
        outcome = bnnrun(*RUN, "hydra.run.dir=run")
    assert outcome.status == 1 and ".run-lock was removed" in outcome.err
    assert not list((tmp_path / "run").glob("*.pt"))
    assert not list((tmp_path / "results" / "runs").glob("*.json"))
