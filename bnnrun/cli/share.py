"""The jobs of a sweep, shared with other processes of the same line, by any of Hydra's launchers.

`Shared` stands in the launcher's place. It hands on the jobs that nobody holds and that are not
done, waits for those that another process holds, and knows of each what became of it: from what
the launcher returns, or from the file that the job left.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from bnnrun.cli import launchers
from bnnrun.cli.compose import to_config
from bnnrun.cli.job import FAILED, INTERRUPTED, explain
from bnnrun.cli.progress import Job, Progress, in_words
from bnnrun.cli.task import Outcome, Task, outcome_of, result
from bnnrun.cli.words import as_word
from bnnrun.errors import InputError, RunError, Stopped
from bnnrun.lock import NAME

KILLED = "its process ended before it did (killed, or out of memory); the same line goes on with it"


def composed_jobs(
    loader: ConfigLoader,
    config: DictConfig,
    overrides: Sequence[Sequence[str]],
    first: int,
    swept: set[str],
) -> list[Job]:
    """The jobs of a sweep's configuration.

    Each is bound to its folder as it is named here: not every launcher numbers jobs alike.

    Args:
        first: number of the first job
        swept: keys in which the jobs differ
    """
    jobs, before = [], HydraConfig.instance().cfg
    for number, words in enumerate(map(list, overrides), first):
        composed = loader.load_sweep_config(config, words)
        with open_dict(composed):
            composed.hydra.job.num, composed.hydra.job.id = number, str(number)
        HydraConfig.instance().set_config(composed)  # what `${hydra:...}` in a name reads
        sweep: Any = OmegaConf.to_container(composed.hydra.sweep, resolve=True)
        experiment = composed.hydra.runtime.choices.get("experiment") or ""
        shown = [word for word in words if word.partition("=")[0].lstrip("+") in swept]
        with open_dict(composed):
            del composed["hydra"]
        try:
            typed = to_config(composed)
        except InputError:
            typed = None
        jobs.append(
            Job(
                number=number,
                settings=" ".join(shown or words),
                words=[*words, as_word("hydra.sweep.subdir", sweep["subdir"])],
                folder=Path(os.path.abspath(Path(sweep["dir"], sweep["subdir"]))),  # noqa: PTH100
                typed=typed,
                experiment=experiment,
            )
        )
    HydraConfig.instance().cfg = before
    return jobs


class Shared(Launcher):
    """A launcher of Hydra's for the jobs that are left to this process.

    Args:
        name:  the choice of hydra/launcher
        inner: the launcher itself
        swept: keys in which the jobs differ
    """

    def __init__(
        self, name: str, inner: Launcher, task: Task, progress: Progress, swept: set[str]
    ) -> None:
        self.name, self.inner, self.task = name, inner, task
        self.progress, self.swept = progress, swept

    def setup(self, **hydra: Any) -> None:
        """Nothing: the launcher has been set up."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Every job, until it is known of each what became of it."""
        context, config = self.inner.hydra_context, self.inner.config  # type: ignore[attr-defined]
        jobs = composed_jobs(
            context.config_loader, config, job_overrides, initial_job_idx, self.swept
        )
        self.progress.jobs += jobs
        while left := [job for job in jobs if job.outcome is None]:
            free = [job for job in left if self._is_free(job)]
            if self.progress.stop:
                raise Stopped(self._stopped(jobs))
            if free:
                self._hand_on(free)
            elif held := [job for job in left if job.outcome is None]:
                self.progress.wait(held)
        if any(job.outcome and job.outcome.status == INTERRUPTED for job in jobs):
            raise Stopped(self._stopped(jobs))
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=job.outcome) for job in jobs]

    def _is_free(self, job: Job) -> bool:
        """Whether nobody holds a job and it is not done; what has its record is noted."""
        if self.progress.look(job) is not None or job.outcome is not None:
            return False
        if job.typed is None or not self.task.verb.leaves:
            return True
        try:
            record = self.task.earlier.record(job.typed, job.experiment)
        except Exception:  # the job itself tells what is wrong
            return True
        if record is None:
            return True
        path = Path(job.typed.results_dir) / "runs" / record.name
        self.progress.note(
            job,
            Outcome("skipped", result([record])),
            f"its record is {path}; overwrite=true trains it again",
        )
        return False

    def _hand_on(self, jobs: list[Job]) -> None:
        self.task.jobs = launchers.jobs_on_a_machine(self.name, self.inner, len(jobs))
        before = [_claim(job) for job in jobs]
        try:
            with self.progress.followed():
                returns = self.inner.launch([job.words for job in jobs], jobs[0].number)
        except (OSError, InputError, HydraException, OmegaConfBaseException):
            raise
        except Exception as error:
            time.sleep(1)  # for the processes that it ends with it
            begun = [
                _claim(job) not in ("", claim) for job, claim in zip(jobs, before, strict=True)
            ]
            self._died(jobs, begun, error)
            return
        for job, returned in zip(jobs, returns, strict=True):
            self._returned(job, returned)

    def _returned(self, job: Job, returned: JobReturn) -> None:
        value = returned._return_value
        if returned.status is JobStatus.FAILED:
            value = outcome_of(job.folder, self.task.start.name)
            if value is None and isinstance(returned._return_value, Exception):
                line, status = explain(returned._return_value)
                value = Outcome("failed", error=line, status=status)
        if value is not None:
            self.progress.note(job, value)

    def _died(self, jobs: list[Job], begun: list[bool], error: Exception) -> None:
        """The launcher has failed: say what became of the jobs that it had.

        Raises:
            RunError: none of them had begun
        """
        if not any(begun) and not any(job.outcome for job in jobs):
            raise RunError(f"hydra/launcher={self.name}: {' '.join(str(error).split())}")
        for job, has_begun in zip(jobs, begun, strict=True):
            if self.progress.look(job) is not None or job.outcome is not None:
                continue
            if has_begun:
                self.progress.note(job, Outcome("failed", error=KILLED, status=FAILED))
            elif self.name in launchers.OUTLASTING:  # it may be queued still
                self.progress.note(job, Outcome("not begun", status=FAILED))

    def _stopped(self, jobs: list[Job]) -> str:
        stopped = sum(job.outcome is not None and job.outcome.name == "stopped" for job in jobs)
        return f"{in_words(stopped)} stopped and saved"


def _claim(job: Job) -> str:
    """The content of the claim on a job's folder; "" where there is none."""
    try:
        return (job.folder / NAME).read_text(encoding="utf-8")
    except OSError:
        return ""
