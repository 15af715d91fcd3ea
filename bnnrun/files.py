"""Naming files as a user does, and writing them so that nobody ever sees half of one."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bnnrun.errors import InputError, RunError


def user_path(text: str | Path) -> Path:
    """The file that a user's word names: `~` alone, or before a slash, is the home folder.

    `~x.png`, `~x/y` and `./~/x` are files of those names, and no user's home.
    """
    if str(text) != "~" and not str(text).startswith(("~/", f"~{os.sep}")):
        return Path(text)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise InputError(f"{text}: there is no home folder here; name the place in full") from None


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill a file beside `path`, then rename it to `path`.

    Whatever goes wrong, what stood at `path` before stays; RunError tells what went wrong.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from None
    os.close(handle)
    beside = Path(name)
    try:
        write(beside)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)  # mkstemp's own 0600 would hide results from a group
        beside.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise RunError(f"{path}: cannot be written ({reason}); what stood there is kept") from None
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text."""

    def write(beside: Path) -> None:
        # A name that is no UTF-8 on its disk has lone surrogates here, which UTF-8 does not.
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")

    write_atomically(path, write)


def remove_unfinished(path: Path) -> None:
    """Delete what killed calls of `write_atomically` left beside `path`."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Within the block no other process is in such a block of `folder`; RunError where one is.

    The system itself lets go of the lock when the process ends, by `kill -9` too. Where it has no
    such locks (Windows, some network disks) nothing is refused.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder}: another process is at work there") from None
        except OSError:
            pass
        yield
