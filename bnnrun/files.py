"""Naming files as a user does, and writing them so that nobody ever sees half of one."""

import errno
import io
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

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


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Have `write` fill a file beside `path`, then rename it to `path`.

    Whatever goes wrong, what stood at `path` before stays; RunError tells what went wrong.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({reason_of(error, path.parent)})") from None
    beside, file = Path(name), _Watched(handle, "wb")
    try:
        with file:
            write(cast(BinaryIO, file))
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)  # mkstemp's own 0600 would hide results from a group
        beside.replace(path)
    except (OSError, RuntimeError) as error:
        reason = reason_of(file.fault or error, path.parent)
        raise RunError(f"{path}: cannot be written ({reason}); what stood there is kept") from None
    finally:
        beside.unlink(missing_ok=True)


class _Watched(io.FileIO):
    """A file that remembers why it could not be written: torch.save raises a RuntimeError then.

    Attributes:
        fault: the system's error, or None
    """

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        """All of `data`: the system may take a part, and the rest at the next call."""
        left = memoryview(data).cast("B")
        try:
            while left:
                left = left[super().write(left) :]
        except OSError as error:
            self.fault = error
            raise
        return memoryview(data).nbytes


def reason_of(error: Exception, folder: Path) -> str:
    """Why a file could not be written to a folder, in a person's words."""
    if not isinstance(error, OSError):
        return str(error).splitlines()[0]
    if error.errno == errno.ENOSPC:
        return f"no space left on the disk of {folder.resolve()}"
    return error.strerror or str(error)


def write_bytes(path: Path, content: bytes) -> None:
    """`write_atomically` for bytes."""
    write_atomically(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text, as UTF-8."""
    # A name that is no UTF-8 on its disk has lone surrogates here, which UTF-8 does not.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def private_folder() -> Path | None:
    """A folder for compiled kernels, and claims on GPUs, below the system's temporary one.

    None where none is safe. It is the user's own and closed to others: what lies in it is loaded
    and run.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    try:
        folder = Path(tempfile.gettempdir()) / f"bnnrun-kernels-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
    except OSError:
        return None
    if not stat.S_ISDIR(state.st_mode):
        return None
    if os.name == "posix" and (state.st_uid != user or state.st_mode & 0o077):
        return None
    return folder


def remove_unfinished(path: Path) -> None:
    """Delete what killed calls of `write_atomically` left beside `path`."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)
