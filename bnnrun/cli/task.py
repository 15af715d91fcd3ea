"""One job of a sweep, in whatever process its launcher runs it.

What became of it is returned, and left in the job's folder for the other processes of the sweep
and for a launcher that dies.
"""

import functools
import io
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from hydra.core.hydra_config import HydraConfig

from bnnrun.cli import gpus, terminal
from bnnrun.cli.compose import to_config
from bnnrun.cli.earlier import Earlier, epochs_done
from bnnrun.cli.job import INTERRUPTED, described, explain, work
from bnnrun.cli.start import Start
from bnnrun.cli.verbs import Verb
from bnnrun.config import Device
from bnnrun.errors import RunError, Stopped
from bnnrun.files import write_text
from bnnrun.lock import HeldError, locked
from bnnrun.machine import cores
from bnnrun.records import Record, Run
from bnnrun.train.interrupt import StopRequest, stop_request

FILE = "outcome.json"
POLL_S = 1.0  # between two looks at whether the launching process was asked to stop
PARENT_S = 5.0  # between two looks at whether the parent process is there
_at_work = threading.Lock()  # held while a process of a launcher's has a job


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        name:   done, resumed, skipped, failed, stopped or not begun
        result: the number of its record
        error:  one line, where it failed or was stopped
        status: the exit status that it alone would have
        start:  of the sweep, in which it came to this
    """

    name: str
    result: str = ""
    error: str = ""
    status: int = 0
    start: str = ""

    @property
    def is_final(self) -> bool:
        """Whether no process of the same start need do the job."""
        return self.name in ("done", "resumed", "skipped", "failed")


def outcome_of(folder: Path, start: str) -> Outcome | None:
    """What became of the job of `folder` in a start of the sweep; None where it is not known."""
    try:
        outcome = Outcome(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return outcome if outcome.start == start else None


def result(records: list[Record]) -> str:
    """'3.25 %' of a record; of several their number."""
    if len(records) == 1:
        return f"{records[0].value:.2f} {records[0].unit}"
    return f"{len(records)} records"


class Listener(Protocol):
    """Who is told of the jobs that run in the launching process itself."""

    def arrives(self, folder: Path) -> bool:
        """Whether a job that the launcher has come to is free; Stopped where it must not begin."""

    def begins(self, folder: Path) -> None:
        """It is done by this process."""

    def ends(self, folder: Path, outcome: Outcome | None) -> None:
        """It ended; None where another process holds its folder."""


@dataclass
class Task:
    """What Hydra's launchers call with each job's configuration; it is pickled on the way.

    Attributes:
        jobs:     jobs that share the processor that this one runs on
        output:   device and number of the file that the launching process prints to
        listener: in the launching process; another process has none
    """

    verb: Verb
    start: Start
    earlier: Earlier
    jobs: int = 1
    output: tuple[int, int] | None = None
    listener: Listener | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "listener": None}

    def __call__(self, composed: Any) -> Outcome | None:
        """What became of the job; None where another process holds its folder."""
        folder = Path(HydraConfig.get().runtime.output_dir)
        if self.listener is None:
            return self._elsewhere(composed, folder)
        if not self.listener.arrives(folder):
            return None
        outcome = self._attempt(composed, folder)
        self.listener.ends(folder, outcome)
        if outcome is not None and outcome.name == "stopped":
            raise Stopped(outcome.error)
        return outcome

    def _elsewhere(self, composed: Any, folder: Path) -> Outcome | None:
        """In a process of the launcher's: threads shared, silent where nobody could follow it."""
        _settle_in()
        with _at_work:
            return self._silent_attempt(composed, folder)

    def _silent_attempt(self, composed: Any, folder: Path) -> Outcome | None:
        if "threads" in composed and composed.threads == 0:
            composed.threads = max(1, cores() // self.jobs)
        asked = StopRequest(_polled(self.start.stop.exists))
        with stop_request(asked) as stop, self._quiet():
            if stop:
                return Outcome("not begun", status=INTERRUPTED, start=self.start.name)
            return self._attempt(composed, folder)

    def _attempt(self, composed: Any, folder: Path) -> Outcome | None:
        try:
            with locked(folder) as lock:
                outcome = outcome_of(folder, self.start.name)
                if outcome is None or not outcome.is_final:
                    if self.listener is not None:
                        self.listener.begins(folder)
                    outcome = self._outcome(composed, described(self.verb, lock.check))
                    lock.check()
                    with suppress(OSError, RunError):  # a full disk; it is also returned
                        write_text(folder / FILE, json.dumps(asdict(outcome), indent=1) + "\n")
                return outcome
        except HeldError:
            return None
        except OSError as error:
            return self._failed(composed, error)

    def _outcome(self, composed: Any, run: Run) -> Outcome:
        try:
            name, records = self._work(composed, run)
        except HeldError:
            raise
        except Exception as error:
            return self._failed(composed, error)
        except (Stopped, KeyboardInterrupt) as error:
            line, status = explain(error)
            return Outcome("stopped", error=line, status=status, start=self.start.name)
        return Outcome(name, result(records), start=self.start.name)

    def _failed(self, composed: Any, error: Exception) -> Outcome:
        if composed.debug:
            traceback.print_exc()
        line, status = explain(error)
        return Outcome("failed", error=line, status=status, start=self.start.name)

    def _work(self, composed: Any, run: Run) -> tuple[str, list[Record]]:
        """(what became of the job, its records)."""
        typed = to_config(composed)
        if not self.verb.leaves:
            return "done", work(self.verb, typed, run)
        if record := self.earlier.record(typed, run.experiment):
            return "skipped", [record]
        if epochs_done(typed, run.folder) is not None:
            typed.resume = str(run.folder)
        if typed.device is not Device.cpu:
            gpus.take_one()
        return "resumed" if typed.resume else "done", work(self.verb, typed, run)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Print nothing where the launching process prints: lines of several jobs would mix.

        The job's log has them all.
        """
        if self.output is None or self.output != standard_output():
            yield
            return
        with redirect_stdout(io.StringIO()):
            yield


def standard_output() -> tuple[int, int] | None:
    """Device and number of the file that this process prints to."""
    try:
        status = os.fstat(1)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@functools.cache
def _settle_in() -> None:
    """Once in a process of a launcher's."""
    terminal.prepare()
    if threading.current_thread() is threading.main_thread():
        terminal.outlast()
        # Between two jobs the launching process answers Ctrl-C, which a terminal sends to all.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, and its job: no other job will come.

    A launcher that is killed leaves its workers waiting, with their memory and their GPU.
    """
    while os.getppid() == parent:
        time.sleep(PARENT_S)
    with _at_work:
        os._exit(0)


def _polled(ask: Callable[[], bool]) -> Callable[[], bool]:
    """`ask`, at most once in POLL_S: a file system may be far away."""
    latest, answer = -POLL_S, False

    def asked() -> bool:
        nonlocal latest, answer
        if not answer and time.monotonic() - latest >= POLL_S:
            latest, answer = time.monotonic(), ask()
        return answer

    return asked
