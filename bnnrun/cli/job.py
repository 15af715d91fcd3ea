"""One run of a verb, in the folder that Hydra made for it, and how an error is told."""

import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnnrun.cli.verbs import Verb
from bnnrun.errors import InputError, RunError, Stopped

if TYPE_CHECKING:  # help, completion and errors wait for nothing
    from bnnrun.records import Record, Run

WRONG_INPUT, FAILED, INTERRUPTED = 2, 1, 130
# Words that say where a run finds and leaves its files: no part of the command in its record.
OF_THIS_MACHINE = ("resume=", "overwrite=", "plan=", "results_dir=", "dataset.root=")


_STATUS: dict[type[BaseException], int] = {
    InputError: WRONG_INPUT, RunError: FAILED, Stopped: INTERRUPTED, KeyboardInterrupt: INTERRUPTED,
}  # fmt: skip
# What PyTorch raises as a RuntimeError, on a processor and on a GPU.
_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)
_SMALLER = (
    "close other programs, or lower what is held at once: trainer.batch_size, "
    "trainer.eval_batch_size, batch, dataset.image_size, the size of the network"
)


def explain(error: BaseException) -> tuple[str, int]:
    """(an error in one line, its exit status)."""
    for error_type, status in _STATUS.items():
        if isinstance(error, error_type):
            return str(error) or "interrupted", status
    shown = " ".join(str(error).split())
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(shown):
        return f"not enough memory ({shown or 'none was left'}); {_SMALLER}", FAILED
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error.filename or 'a file'}: no space left on its disk", FAILED
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; name another place", WRONG_INPUT
    return f"failed: {type(error).__name__}: {shown} (debug=true shows where)", FAILED


def not_writable(error: OSError, *, multirun: bool) -> Exception:
    """That the folder of a run, or with -m of the runs, cannot be made, and what moves it."""
    if error.errno == errno.ENOSPC:
        return error
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    return InputError(f"{error.filename}: {error.strerror}; {key}=FOLDER puts the run elsewhere")


def tell(error: BaseException) -> int:
    """Print an error in one line; its exit status."""
    line, status = explain(error)
    print(f"bnnrun: {line}", file=sys.stderr)
    return status


def described(verb: Verb, check: Callable[[], None]) -> "Run":
    """What Hydra knows of the run that it began; `check` as of a Run."""
    from hydra.core.hydra_config import HydraConfig

    from bnnrun.records import Run

    hydra = HydraConfig.get()
    search = [w for w in as_typed(hydra.overrides.hydra) if w.startswith("hydra.searchpath=")]
    task = [w for w in as_typed(hydra.overrides.task) if not w.startswith(OF_THIS_MACHINE)]
    folder = Path(hydra.runtime.output_dir)
    here = Path.cwd()
    return Run(
        folder=folder.relative_to(here) if folder.is_relative_to(here) else folder,
        command=shlex.join(["bnnrun", verb.name, *task, *search]),
        experiment=hydra.runtime.choices.get("experiment") or "",
        check=check,
    )


def as_typed(overrides: Any) -> list[str]:
    """Hydra's list of a run's words; what looks like an interpolation in them is not resolved."""
    from omegaconf import OmegaConf

    words: list[str] = OmegaConf.to_container(overrides, resolve=False)  # type: ignore[assignment]
    return words


def work(verb: Verb, typed: Any, run: "Run") -> "list[Record]":
    """Do what the verb does and write its records."""
    from rich.console import Console

    from bnnrun import machine, records

    records.prepare(typed.results_dir)
    machine.source_state()
    produced: list[Record] = verb.load()(typed, run)
    for record in produced:
        run.check()
        path = records.write(record, typed.results_dir)
        Console(highlight=False).print(f"record: {path}", markup=False, soft_wrap=True)
    return produced


def run_hydra(verb: Verb, words: list[str], task: Any) -> None:
    """Hydra's own main, for what its flags show; errors as by `told_in_one_line`."""
    import hydra

    from bnnrun.cli.compose import CONF, VERSION_BASE, register_schemas

    register_schemas()
    before, sys.argv = sys.argv, ["bnnrun", *words]
    main = hydra.main(version_base=VERSION_BASE, config_path=str(CONF), config_name=verb.name)
    try:
        with told_in_one_line(multirun=False):
            main(task)()
    finally:
        sys.argv = before


@contextmanager
def told_in_one_line(*, multirun: bool) -> Iterator[None]:
    """What Hydra raises within the block, as our own errors.

    Raises:
        InputError: a setting of Hydra's own is wrong, or the folder of a run, or with -m of the
            runs, cannot be written
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from bnnrun.cli.faults import one_line

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come back here, and not to Hydra's own report
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(one_line(error)) from None
    except (OSError, ValueError) as error:  # logging wraps that it cannot open its file
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise not_writable(cause, multirun=multirun) from None
