"""A run whose reader or terminal goes away goes on, says so in its log, and leaves its record."""

import os
import signal
import subprocess
import sys
import time

import pytest
from forked import start

# The reference: processes start the sooner without compiled kernels.
WORDS = ["dataset=digits", "arch.width=16", "threads=1", "hydra.run.dir=run", "trainer.epochs=12",
         "trainer.engine=reference"]  # fmt: skip
TRAIN = [sys.executable, "-m", "bnnrun", "train", *WORDS]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and terminals of POSIX")


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def assert_went_on(tmp_path, said, epochs=12):
    log = (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    assert said in log and "the run goes on" in log
    assert f"epoch {epochs}/{epochs}" in log
    assert len(list((tmp_path / "results" / "runs").glob("*.json"))) == 1


@pytest.mark.parametrize("both", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_a_reader_that_goes_away_does_not_stop_a_run(tmp_path, both):
    run = start("train", *WORDS)
    assert "training" in run.stdout.readline()
    run.stdout.close()
    if not both:
        assert run.stderr.read() == ""
    run.stderr.close()
    assert run.wait() == 0
    assert_went_on(tmp_path, "standard output was lost (Broken pipe)")


def test_a_terminal_that_is_closed_does_not_stop_a_run(tmp_path):
    pty = pytest.importorskip("pty")
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
        os.execv(sys.executable, [*TRAIN, "trainer.epochs=20"])
    shown = b""
    while b"epoch  1/20" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)  # the system sends SIGHUP, and every line after it fails
    until = time.monotonic() + 200
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < until:
        time.sleep(0.05)
    assert ended[0] == child, "the run did not end"
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    assert_went_on(tmp_path, "the terminal was closed (SIGHUP)", 20)


def test_a_hang_up_that_is_ignored_stays_ignored(tmp_path):
    run = subprocess.Popen(
        TRAIN,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # noqa: PLW1509
    )
    run.stdout.readline()
    run.send_signal(signal.SIGHUP)
    run.communicate(timeout=100)
    assert run.returncode == 0
    assert "SIGHUP" not in (tmp_path / "run" / "train.log").read_text(encoding="utf-8")


def test_a_run_without_any_stream_leaves_its_record(tmp_path):
    closed = subprocess.run(["sh", "-c", f'"$0" "$@" >&- 2>&-', *TRAIN], check=False)  # noqa: F541
    assert closed.returncode == 0
    assert len(list((tmp_path / "results" / "runs").glob("*.json"))) == 1


def test_what_is_no_run_ends_quietly_with_its_reader():
    done = subprocess.run(
        ["sh", "-c", '"$0" -m bnnrun train --help | head -1', sys.executable],
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(b"bnnrun train") and done.stderr == b""
