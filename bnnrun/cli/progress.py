"""The jobs of a sweep and what is printed of them: a line as each begins and as it ends."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnnrun.cli.task import Outcome, outcome_of
from bnnrun.errors import Stopped
from bnnrun.lock import Claim, Watch
from bnnrun.train.interrupt import StopRequest

POLL_S = 0.5  # between two looks at what other processes do


@dataclass
class Job:
    """One job of a sweep.

    Attributes:
        settings:   the words in which it differs from the other jobs
        words:      all that make it
        typed:      its configuration; None where that is wrong, as it will tell itself
        experiment: name of its file in conf/experiment, or ""
        outcome:    None as long as it is not known
        holder:     the process that was last seen at work on it, or ""
    """

    number: int
    settings: str
    words: list[str]
    folder: Path
    typed: Any
    experiment: str
    outcome: Outcome | None = None
    holder: str = ""


def in_words(jobs: int) -> str:
    """'1 job', '2 jobs'."""
    return f"{jobs} job{'s' * (jobs != 1)}"


class Progress:
    """Follows the jobs of a sweep, those of this process and, by their folders, all others.

    Attributes:
        start: of the sweep (start.py), whose outcomes count
    """

    def __init__(self, stop: StopRequest) -> None:
        self.stop, self.start = stop, ""
        self.jobs: list[Job] = []
        self._waited_for: set[str] = set()  # the lines that were printed
        self._watch = Watch()
        self._own: Job | None = None  # at work in this process: its lines are not broken up
        self._printing = threading.RLock()

    def left(self) -> int:
        """How many jobs are still to be done, by this start of the sweep or by the next one."""
        return sum(job.outcome is None or not job.outcome.is_final for job in self.jobs)

    def look(self, job: Job) -> Claim | None:
        """The claim on a job's folder as long as its holder may be alive; its outcome is noted."""
        claim = self._watch.look(job.folder)
        if claim is not None and claim.alive is not False:
            if job.holder != claim.holder and not claim.is_own:
                job.holder = claim.holder
                self._print(f"job {job.number}: {job.settings} ({claim.holder})")
            return claim
        outcome = outcome_of(job.folder, self.start)
        if outcome is not None and outcome.is_final:
            self.note(job, outcome)
        return None

    def note(self, job: Job, outcome: Outcome, reason: str = "") -> None:
        """A job has come to an end, which is printed once.

        Args:
            reason: printed in place of the result
        """
        with self._printing:
            if job.outcome is not None:
                return
            job.outcome = outcome
            if not job.holder and outcome.name in ("done", "resumed", "failed"):
                self._print(f"job {job.number}: {job.settings}")  # it was too short to be seen
            if outcome.error and outcome.name == "failed":
                line = f"bnnrun: job {job.number} failed: {outcome.error}"
                print(line, file=sys.stderr, flush=True)
            reason_text = f": {reason or outcome.result}" if reason or outcome.result else ""
            if outcome.name != "not begun":
                left = in_words(self.left())
                self._print(f"job {job.number} {outcome.name}{reason_text}; {left} left")

    def wait(self, jobs: list[Job]) -> None:
        """Until one of the jobs, which others hold, may be free."""
        for job in jobs:
            line = f"waiting for job {job.number}: {job.holder}"
            if line not in self._waited_for:
                self._waited_for.add(line)
                self._print(line)
        while all(self.look(job) and job.outcome is None for job in jobs):
            if self.stop:
                raise Stopped(f"stopped while waiting for job {jobs[0].number}")
            time.sleep(POLL_S)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Print what becomes of the jobs, which processes of a launcher do within the block."""
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(POLL_S):
                for job in self.jobs:
                    if self._own is None and job.outcome is None:
                        self.look(job)

        thread = threading.Thread(target=follow, name="bnnrun-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    # ---- of this process: the Listener of a Task ----------------------------------------------

    def arrives(self, folder: Path) -> bool:
        job = self._job(folder)
        if self.stop:
            raise Stopped(f"stopped before job {job.number}")
        return self.look(job) is None and job.outcome is None

    def begins(self, folder: Path) -> None:
        self._own = self._job(folder)
        self._own.holder = "this process"
        self._print(f"job {self._own.number}: {self._own.settings}")

    def ends(self, folder: Path, outcome: Outcome | None) -> None:
        if outcome is not None:
            self.note(self._job(folder), outcome)
        self._own = None

    def _job(self, folder: Path) -> Job:
        named = [job for job in self.jobs if job.folder == folder]
        return next((job for job in named if job.outcome is None), named[-1])

    def _print(self, line: str) -> None:
        with self._printing:
            print(line, flush=True)
