"""`-m`: the jobs of one command line, past those that fail, by any of Hydra's launchers.

A sweep of `train` can be cut off anywhere and begun again by the same words: jobs that have their
record are skipped, a job that was cut off goes on from its checkpoint. The same words typed in
several places at once share the jobs.
"""

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode

from bnnrun.cli import launchers
from bnnrun.cli.compose import composed_of, hydra_session
from bnnrun.cli.earlier import Earlier
from bnnrun.cli.job import FAILED, WRONG_INPUT, as_typed, explain, told_in_one_line
from bnnrun.cli.progress import Job, Progress, in_words
from bnnrun.cli.share import Shared
from bnnrun.cli.start import Start, join
from bnnrun.cli.task import Task, standard_output
from bnnrun.cli.verbs import Verb
from bnnrun.cli.words import parse
from bnnrun.errors import Stopped
from bnnrun.table import print_table
from bnnrun.train.interrupt import StopRequest, stop_request


class Sweep:
    """The jobs of one command line.

    Args:
        argv: the words as they were typed, for the line on how to go on
    """

    def __init__(self, verb: Verb, argv: list[str]) -> None:
        self.verb = verb
        self.command = shlex.join(["bnnrun", verb.name, *argv])
        self.launcher = "basic"
        self.start: Start | None = None
        self.stop = StopRequest(on_ask=self._pass_on)
        self.progress = Progress(self.stop)

    def run(self, words: list[str]) -> int:
        """Every job; a table of them; the exit status.

        The status is 2 where every failure was wrong input, else 1 where a job failed.
        """
        resumes = bool(self.verb.leaves)
        swept = {o.key_or_group for o in parse(words) if o.is_sweep_override()}
        try:
            with (
                stop_request(self.stop) if resumes else nullcontext(),
                told_in_one_line(multirun=True),
                hydra_session(),
            ):
                self._launch(words, swept)
        except (Stopped, KeyboardInterrupt) as error:
            if not resumes:
                raise
            raise Stopped(self._how_to_go_on(explain(error)[0])) from None
        finally:
            self._show()
        outcomes = [job.outcome for job in self.progress.jobs if job.outcome]
        failed = {outcome.status for outcome in outcomes if outcome.status}
        if not failed:
            return 0
        return WRONG_INPUT if failed == {WRONG_INPUT} else FAILED

    def _launch(self, words: list[str], swept: set[str]) -> None:
        """What Hydra's own multirun does, with its launcher for the jobs that are left to us."""
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        config = composed_of(self.verb, words, RunMode.MULTIRUN)
        self.launcher = config.hydra.runtime.choices["hydra/launcher"]
        if config.get("plan"):
            self._plan(hydra, config, swept)
            return
        callbacks = Callbacks(config)
        context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
        with join(Path(config.hydra.sweep.dir), self.command) as self.start:
            self.progress.start = self.start.name
            task = Task(
                self.verb,
                self.start,
                Earlier(self.verb.leaves),
                output=standard_output(),
                listener=self.progress,
            )
            callbacks.on_multirun_start(config=config, config_name=self.verb.name)
            sweeper: Any = Plugins.instance().instantiate_sweeper(
                config=config, hydra_context=context, task_function=task
            )
            sweeper.launcher = Shared(self.launcher, sweeper.launcher, task, self.progress, swept)
            sweeper.sweep(arguments=as_typed(config.hydra.overrides.task))
            callbacks.on_multirun_end(config=config, config_name=self.verb.name)

    def _plan(self, hydra: Any, config: Any, swept: set[str]) -> None:
        from bnnrun.cli.plan import planned, show

        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
        sweeper = Plugins.instance().instantiate_sweeper(
            config=config, hydra_context=context, task_function=lambda composed: None
        )
        show(planned(hydra.config_loader, config, sweeper, swept), Earlier(self.verb.leaves))

    def _pass_on(self) -> None:
        """At a request to stop: to the launcher's processes; those that outlast us are left."""
        if self.launcher in launchers.OUTLASTING:
            raise KeyboardInterrupt
        if self.start is not None:
            self.start.stop.touch()

    def _how_to_go_on(self, message: str) -> str:
        if self.launcher in launchers.OUTLASTING:
            message += f"; {in_words(self.progress.left())} left to {self.launcher}: "
            message += launchers.OUTLASTING[self.launcher]
        return f"{message}; go on with the whole sweep: {self.command}"

    def _show(self) -> None:
        jobs = self.progress.jobs
        if not jobs:
            return
        print_table(
            ["job", "settings", "outcome", self.verb.leaves.replace("_", " ") or "result"],
            [[str(job.number), job.settings, *self._came_to(job)] for job in jobs],
        )
        sys.stdout.flush()
        for job in jobs:
            if job.outcome and job.outcome.name == "failed":
                message = ": ".join(filter(None, (job.settings, job.outcome.error)))
                print(f"bnnrun: job {job.number} failed: {message}", file=sys.stderr)

    def _came_to(self, job: Job) -> tuple[str, str]:
        if job.outcome is not None:
            return job.outcome.name, job.outcome.result
        return ("running" if self.progress.look(job) else "not begun"), ""
