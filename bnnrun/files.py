"""Writing files so that a crash, a full disk or a second reader never sees half of one."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bnnrun.errors import RunError


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
    """`write_atomically` for text: UTF-8, lines that end in a line feed on every system."""

    def write(beside: Path) -> None:
        beside.write_text(text, encoding="utf-8", newline="\n")

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
