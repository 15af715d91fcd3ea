"""`-m`: one job after the other, past those that fail.

A sweep of `train` can be cut off anywhere and begun again by the same words: jobs that have their
record are skipped, a job that was cut off goes on from its checkpoint.
"""

import json
import shlex
import sys
import traceback
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from bnnrun import data, records
from bnnrun.cli.compose import to_config
from bnnrun.cli.job import FAILED, WRONG_INPUT, as_typed, described, explain, run_hydra, work
from bnnrun.cli.verbs import Verb
from bnnrun.cli.words import parse
from bnnrun.config import Device, EngineChoice
from bnnrun.errors import InputError, Stopped
from bnnrun.lock import locked
from bnnrun.records import Record, Run
from bnnrun.settings import plain
from bnnrun.table import print_table
from bnnrun.train import initial
from bnnrun.train.interrupt import stop_request


@dataclass(frozen=True)
class Job:
    """What became of one job.

    Attributes:
        settings: the words in which it differs from the other jobs
        outcome:  done, resumed, skipped, failed or stopped
        result:   the number of its record
        error:    one line, where it failed
        status:   the exit status that it alone would have
    """

    number: int
    settings: str
    outcome: str
    result: str = ""
    error: str = ""
    status: int = 0


class Sweep:
    """The jobs of one command line.

    Args:
        argv: the words as they were typed, for the line on how to go on
    """

    def __init__(self, verb: Verb, argv: list[str]) -> None:
        self.verb = verb
        self.command = shlex.join(["bnnrun", verb.name, *argv])
        self.jobs: list[Job] = []
        self.files: dict[str, list[str]] = {}  # MD5 sums by data set: those are read once

    def run(self, flags: list[str], words: list[str]) -> int:
        """Every job, in Hydra's order; a table of them; the exit status.

        The status is 2 where every failure was wrong input, else 1 where a job failed.
        """
        resumes = bool(self.verb.leaves)
        self.swept = {o.key_or_group for o in parse(words) if o.is_sweep_override()}
        try:
            with stop_request() if resumes else nullcontext() as self.stop:
                run_hydra(self.verb, [*flags, *words], self._job)
        except (Stopped, KeyboardInterrupt) as error:
            if not resumes:
                raise
            line = f"{explain(error)[0]}; go on with the whole sweep: {self.command}"
            raise Stopped(line) from None
        finally:
            self._show()
        failed = {job.status for job in self.jobs if job.outcome == "failed"}
        if not failed:
            return 0
        return WRONG_INPUT if failed == {WRONG_INPUT} else FAILED

    def _job(self, composed: Any) -> None:
        """One job; an error is told at once, noted, and does not cost the others."""
        hydra = HydraConfig.get()
        number, task = hydra.job.num, as_typed(hydra.overrides.task)
        settings = " ".join(word for word in task if _key(word) in self.swept) or " ".join(task)
        if self.stop:
            raise Stopped(f"stopped before job {number}")
        print(f"job {number}: {settings}", flush=True)
        try:
            with locked(Path(hydra.runtime.output_dir)) as lock:
                outcome, made = self._done(composed, described(self.verb, lock.check))
        except Exception as error:
            if composed.debug:
                traceback.print_exc()
            line, status = explain(error)
            print(f"bnnrun: job {number} failed: {line}", file=sys.stderr)
            self.jobs.append(Job(number, settings, "failed", error=line, status=status))
        except BaseException:
            self.jobs.append(Job(number, settings, "stopped"))
            raise
        else:
            self.jobs.append(Job(number, settings, outcome, _result(made)))

    def _done(self, composed: Any, run: Run) -> tuple[str, list[Record]]:
        """(what became of the job, its records)."""
        typed = to_config(composed)
        if not self.verb.leaves:
            return "done", work(self.verb, typed, run)
        record = None if typed.overwrite else self._record(typed, run.experiment)
        if record is not None:
            path = Path(typed.results_dir) / "runs" / record.name
            print(f"skipped: its record is {path}; overwrite=true trains it again", flush=True)
            return "skipped", [record]
        if _is_cut_off(typed, run.folder):
            typed.resume = str(run.folder)
        return "resumed" if typed.resume else "done", work(self.verb, typed, run)

    def _record(self, typed: Any, experiment: str) -> Record | None:
        """The latest record of what would be trained: alike in all that the report pools by.

        Raises:
            InputError: the data, or the first weights, that would be compared with the record's
                cannot be read
        """
        names = f"*-{self.verb.leaves}-s{typed.seed}-*.json"
        sha256 = None if typed.init is None else initial.sha256(typed.init)
        chosen, device = typed.trainer.engine, typed.device
        auto = EngineChoice.fast, EngineChoice.reference
        engines = auto if chosen is EngineChoice.auto else (chosen,)
        configs = [initial.settings(typed, sha256, engine) for engine in engines]
        found, _ = records.read_all(typed.results_dir, names)
        alike = [
            record
            for record in found
            if record.experiment == experiment
            and record.config in configs
            and (device is Device.auto or record.device == device.value)
        ]
        for record in reversed(alike):
            if [file["md5"] for file in record.data["files"]] == self._files(typed.dataset):
                return record
        return None

    def _files(self, dataset: Any) -> list[str]:
        key = json.dumps(plain(dataset))
        if key not in self.files:
            self.files[key] = [source.md5 for source in data.load(dataset).sources]
        return self.files[key]

    def _show(self) -> None:
        if not self.jobs:
            return
        rows = [[str(job.number), job.settings, job.outcome, job.result] for job in self.jobs]
        print_table(
            ["job", "settings", "outcome", self.verb.leaves.replace("_", " ") or "result"], rows
        )
        sys.stdout.flush()
        for job in self.jobs:
            if job.error:
                line = f"bnnrun: job {job.number} failed: {job.settings}: {job.error}"
                print(line, file=sys.stderr)


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _is_cut_off(typed: Any, folder: Path) -> bool:
    """Whether a job was begun in `folder` and did not end.

    With overwrite=true one that came to its last epoch begins anew; without, it has lost its record
    and is written down again.

    Raises:
        InputError: there is a checkpoint that cannot be read
    """
    from bnnrun.train import checkpoint

    path = folder / checkpoint.STATE
    if not path.exists():
        return False
    try:
        state = checkpoint.load(path, "checkpoint")
    except InputError as error:
        raise InputError(f"{error}; delete it to begin this job anew") from None
    return not typed.overwrite or state["epoch"] < typed.trainer.epochs


def _result(made: list[Record]) -> str:
    """'3.25 %' of a record; of several their number."""
    if len(made) == 1:
        return f"{made[0].value:.2f} {made[0].unit}"
    return f"{len(made)} records"
