"""A run by itself: what Hydra's own main does for one, in a folder that is locked first."""

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from bnnrun.cli.compose import Checked, hydra_session, to_config
from bnnrun.cli.job import described, not_writable, tell, told_in_one_line, work
from bnnrun.cli.verbs import Verb
from bnnrun.cli.words import as_value
from bnnrun.errors import InputError
from bnnrun.lock import Lock, locked
from bnnrun.train import STATE


def run_alone(verb: Verb, checked: Checked) -> int:
    """Do what the verb does, in the run's own folder; the exit status."""
    statuses = [0]
    with told_in_one_line(multirun=False), hydra_session():
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        config = checked.composed
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
        if config.hydra.mode is RunMode.MULTIRUN:
            raise InputError("hydra.mode=MULTIRUN: -m is the flag that runs a sweep")
        config.hydra.mode = RunMode.RUN
        folder = _folder(config)
        # Hydra writes its files there before it calls anybody, so the folder is taken first.
        with _own(folder) as lock:
            _refuse_another_run(verb, checked.typed, folder)
            with read_write(config.hydra.run):
                config.hydra.run.dir = as_value(folder)
            callbacks = Callbacks(config)
            context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
            callbacks.on_run_start(config=config, config_name=verb.name)
            done = run_job(
                lambda composed: _work(verb, composed, statuses, lock),
                config,
                "hydra.run.dir",
                None,
                context,
            )
            callbacks.on_run_end(config=config, config_name=verb.name, job_return=done)
    return max(statuses)


def _folder(config: DictConfig) -> Path:
    """The folder in which the run will leave its files, as it is named."""
    HydraConfig.instance().set_config(config)  # what `${hydra:...}` in a name reads
    # A folder may be named "???", OmegaConf's mark of a value that is missing.
    run: Any = OmegaConf.to_container(config.hydra.run, resolve=True)
    return Path(str(run["dir"]))


@contextmanager
def _own(folder: Path) -> Iterator[Lock]:
    """Hold the folder of a run; InputError, naming the setting, where it cannot be written."""
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(locked(folder))
        except OSError as error:
            raise not_writable(error, multirun=False) from None
        yield lock


def _refuse_another_run(verb: Verb, typed: Any, folder: Path) -> None:
    """InputError where the folder holds a training run that is not the one to go on with."""
    if not (folder / STATE).exists():
        return
    if verb.name != "train":
        raise InputError(f"{folder}: holds a training run; take another hydra.run.dir=")
    if typed.resume is None and not typed.overwrite:
        raise InputError(
            f"{folder}: holds a run's {STATE}; resume={folder} goes on with it, another "
            "hydra.run.dir= keeps it, overwrite=true trains anew in its place"
        )


def _work(verb: Verb, composed: DictConfig, statuses: list[int], lock: Lock) -> None:
    """Do the run's work; print its error here, as Hydra would add lines of its own."""
    try:
        work(verb, to_config(composed), described(verb, lock.check))
    except Exception as error:
        if composed.debug:
            traceback.print_exc()
        statuses.append(tell(error))
