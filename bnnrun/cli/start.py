"""Which processes belong to one start of a sweep: those of the same line that overlap in time.

A job that failed is not tried again by each of them, and is by the next start, when its user has
put something right. Each process holds a folder of its own in the start's,

    SWEEP_DIR/.starts/START/MEMBER

by the program's one lock, so that whoever comes later sees whether the start goes on.
"""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bnnrun import lock
from bnnrun.lock import HeldError, Watch, locked

FOLDER = ".starts"


@dataclass(frozen=True)
class Start:
    """One start of a sweep, as one of its processes sees it.

    Attributes:
        name: the same for all its processes
        stop: a file that is there once this process was asked to stop, for its workers
    """

    name: str
    stop: Path


@contextmanager
def join(sweep_dir: Path, command: str) -> Iterator[Start]:
    """Take part in the start of `command` that is under way, or begin one.

    Raises:
        OSError: nothing can be written there
    """
    starts = sweep_dir.absolute() / FOLDER
    line = hashlib.sha256(command.encode()).hexdigest()[:12]
    with _alone(starts):
        # Tasks of a SLURM array are one start even where one begins after another's end.
        array = os.environ.get("SLURM_ARRAY_JOB_ID")
        begun = f"{line}-slurm-{array}" if array else _under_way(starts, line)
        name = begun or f"{line}-{uuid.uuid4().hex[:12]}"
        member = starts / name / uuid.uuid4().hex[:12]
        holding = locked(member)
        holding.__enter__()
    try:
        yield Start(name, member / "stop")
    finally:
        with _alone(starts), suppress(OSError):
            holding.__exit__(None, None, None)
            shutil.rmtree(member)
            member.parent.rmdir()  # unless others are there


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder as soon as those who do for a moment let it go."""
    while True:
        holding = locked(folder)
        try:
            holding.__enter__()
            break
        except HeldError:
            time.sleep(lock.PATIENCE_S / 20)
    try:
        yield
    finally:
        holding.__exit__(None, None, None)


def _under_way(starts: Path, line: str) -> str | None:
    """The start of `line` of which a process is alive; what dead ones left is removed."""
    now = (starts / lock.NAME).stat().st_mtime  # by the file system's clock, as the others are
    for start in sorted(starts.glob(f"{line}-*")):
        if any(_is_alive(member, now) for member in start.iterdir()):
            return start.name
        shutil.rmtree(start, ignore_errors=True)
    return None


def _is_alive(member: Path, now: float) -> bool:
    claim = Watch().look(member)
    if claim is None or claim.alive is not None:
        return claim is not None and claim.alive is True
    with suppress(FileNotFoundError):
        return now - (member / lock.NAME).stat().st_mtime < lock.STALE_S
    return False
