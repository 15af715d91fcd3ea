"""`plan=true`: the jobs of a sweep, which of them are done or held, and how long the rest takes.

Nothing is trained and nothing written.
"""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from bnnrun.cli.earlier import Earlier, epochs_done
from bnnrun.cli.estimate import Estimate, Estimator, total
from bnnrun.cli.job import as_typed
from bnnrun.cli.progress import Job, in_words
from bnnrun.cli.share import composed_jobs
from bnnrun.errors import InputError, RunError
from bnnrun.lock import Watch
from bnnrun.table import Column, Number, Value, number, print_table

COLUMNS = ("job", "settings", "folder", "state", Column("epochs left"), Column("hours"), "by")


def planned(loader: ConfigLoader, config: DictConfig, sweeper: Any, swept: set[str]) -> list[Job]:
    """The jobs that a sweep would run.

    Raises:
        InputError: its sweeper chooses jobs as it goes
    """
    if not isinstance(sweeper, BasicSweeper):
        name = config.hydra.runtime.choices["hydra/sweeper"]
        raise InputError(f"plan=true: hydra/sweeper={name} chooses its jobs as it goes")
    words = [*sweeper._parse_config(), *as_typed(config.hydra.overrides.task)]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(words)
    (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return composed_jobs(loader, config, batch, 0, swept)


def show(jobs: list[Job], earlier: Earlier) -> None:
    """Print a row a job, and the sum."""
    watch = Watch()
    estimators: dict[str, Estimator] = {}
    rows: list[list[Value]] = []
    estimates: list[Estimate] = []
    for job in jobs:
        state, epochs = _state(job, earlier, watch)
        shown: list[Value] = ["", "", ""]
        if epochs:
            folder = job.typed.results_dir
            if folder not in estimators:
                estimators[folder] = Estimator(folder)
            estimates.append(estimate := estimators[folder].estimate(job.typed, epochs))
            shown = [Number(epochs), number(estimate.hours, "{:.2f}"), estimate.source]
        rows.append([str(job.number), job.settings, job.folder.name, state, *shown])
    print_table(COLUMNS, rows)
    hours, unknown = total(estimates)
    line = (
        f"{in_words(len(jobs))}, {len(estimates)} to train: about {hours:,.1f} hours, one at a time"
    )
    print(line + (f", and {unknown} of which no record tells" if unknown else ""))


def _state(job: Job, earlier: Earlier, watch: Watch) -> tuple[str, int]:
    """(what is known of a job, the epochs that it still has to train)."""
    if job.typed is None:
        return "its settings are wrong", 0
    try:
        claim = watch.look(job.folder)
        if (record := earlier.record(job.typed, job.experiment)) is not None:
            return f"done: {record.value:.2f} {record.unit}", 0
        reached = epochs_done(job.typed, job.folder)
    except (InputError, RunError) as error:
        return f"will fail: {error}", 0
    left = job.typed.trainer.epochs - (reached or 0)
    after = "" if reached is None else f" after epoch {reached}"
    if claim is not None and claim.alive is not False:
        return f"running{after} ({claim.holder})", left
    return f"cut off{after}" if after else "free", left
