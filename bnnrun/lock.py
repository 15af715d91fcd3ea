"""The one lock of the program: a file in a folder that one process holds, on one machine of many.

The file names its holder: the machine, the process and its start, a token of this claim, and a
count that the holder raises while it lives. On the holder's own machine a claim is stale only if
its process is gone. On another, which cannot see that process, it is stale where its content has
not changed for some minutes of the watcher's own clock: clocks of machines differ.

Every step is one that a shared file system does at once: a file is made only if there is none, and
a stale one is replaced by renaming another over it. Of several that replace it the last one holds
it, as each sees after a moment. A holder that was stopped while its claim was taken over finds
another token in the file when it goes on, and must look before it writes anything (`Lock.check`).
"""

import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bnnrun.errors import RunError

NAME = ".run-lock"
BEAT_S = 15.0  # seconds between two changes of a claim
STALE_S = 180.0  # without a change, seen from another machine
PATIENCE_S = 1.0  # a claim that is looked at may be half written for a moment, or out of its place


class HeldError(RunError):
    """Another process holds the folder, or took it over."""


class Lock:
    """A claim that this process holds on a folder."""

    def __init__(self, folder: Path) -> None:
        # The process may change its folder before it lets go.
        self.folder, self.path = folder, folder.absolute() / NAME
        self.token = uuid.uuid4().hex
        self._ended = threading.Event()

    def check(self) -> None:
        """HeldError where the claim is no longer this process's: it must write nothing more."""
        until = time.monotonic() + PATIENCE_S
        while (now := _read(self.path)).get("token") != self.token:
            if time.monotonic() > until:
                raise HeldError(
                    f"{self.folder}: {_lost(now)} while this process was stopped or cut off from "
                    "it; nothing more is written here, what was saved before is kept"
                )
            time.sleep(PATIENCE_S / 20)

    def _claim(self) -> bool:
        """Make the file; False where there is one."""
        try:
            self._write(self.path)
        except FileExistsError:
            return False
        return True

    def _take_over(self, stale: dict[str, Any]) -> bool:
        """Replace a stale claim; False where another did, or where it is another by now."""
        aside = self.path.with_name(f"{NAME}.{self.token}")
        self._write(aside)
        if _read(self.path) != stale:
            aside.unlink()
            return False
        aside.replace(self.path)
        time.sleep(PATIENCE_S / 5)  # for those who looked when this process did
        return bool(_read(self.path).get("token") == self.token)

    def _write(self, path: Path) -> None:
        content = {**_this_process(), "token": self.token, "beat": 0}
        with path.open("x", encoding="utf-8") as file:
            json.dump(content, file)

    def _hold(self) -> None:
        threading.Thread(target=self._beat, name="bnnrun-lock", daemon=True).start()

    def _beat(self) -> None:
        """Raise the count in the file, as long as it is this claim's."""
        beat = 0
        while not self._ended.wait(BEAT_S):
            beat += 1
            # Written into the file that was looked at: another claim would be another file.
            with suppress(OSError), self.path.open("r+", encoding="utf-8") as file:
                content = _parsed(file.read())
                if content.get("token") == self.token:
                    file.seek(0)
                    file.write(json.dumps({**content, "beat": beat}))
                    file.truncate()
                    file.flush()
                    os.fsync(file.fileno())

    def _release(self) -> None:
        """Take the claim away; another's, made since this one was lost, is put back."""
        self._ended.set()
        aside = self.path.with_name(f"{NAME}.{self.token}")
        with suppress(FileNotFoundError):
            self.path.rename(aside)
            if _read(aside).get("token") != self.token:
                with suppress(OSError):
                    os.link(aside, self.path)
            aside.unlink()


@contextmanager
def locked(folder: Path, tell: Callable[[str], None] | None = None) -> Iterator[Lock]:
    """Hold `folder`, which is made where there is none.

    Args:
        tell: is given a line where it takes minutes to see whether a claim is stale; None: stderr

    Raises:
        HeldError: another process holds it
        OSError:   nothing can be written there
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder)
    while not lock._claim():
        claim = _watched(folder, tell or _to_stderr)
        if claim is None:
            continue  # released since
        if claim.alive:
            raise HeldError(
                f"{folder}: another process is at work there ({claim.holder}); wait for it, or "
                "take another folder"
            )
        if lock._take_over(claim.content):
            break
    lock._hold()
    try:
        yield lock
    finally:
        lock._release()


@dataclass(frozen=True)
class Claim:
    """A process's claim on a folder, as another process sees it.

    Attributes:
        content: of the file; {} where it is not whole
        alive:   None: of another machine, and not yet watched for long enough to know
    """

    content: dict[str, Any]
    alive: bool | None

    @property
    def holder(self) -> str:
        """'process 7 on HOST'."""
        return _holder(self.content)

    @property
    def is_own(self) -> bool:
        """Whether it is this process's."""
        here = _this_process()
        return all(self.content.get(key) == here[key] for key in here)


class Watch:
    """Looks at claims again and again, without waiting for them to show a sign of life."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[dict[str, Any], float, bool]] = {}

    def look(self, folder: Path) -> Claim | None:
        """The claim on `folder`; None where there is none."""
        path = folder / NAME
        content = _read_written(path)
        if content is None:
            self._seen.pop(path, None)
            return None
        here = _this_process()
        if content.get("place") == here["place"]:
            return Claim(content, _start_of(content["pid"]) == content["started"])
        now = time.monotonic()
        before, since, changed = self._seen.setdefault(path, (content, now, False))
        if content and content != before:
            since, changed = now, True
            self._seen[path] = content, since, changed
        return Claim(content, False if now - since > STALE_S else changed or None)


def _watched(folder: Path, tell: Callable[[str], None]) -> Claim | None:
    """The claim on a folder, once it is known whether its holder is alive; None if it is gone."""
    watch, announced = Watch(), False
    while (claim := watch.look(folder)) is not None and claim.alive is None:
        if not announced:
            tell(
                f"{folder}: held by {claim.holder}; looking for a sign of life for up to "
                f"{STALE_S:.0f} s (delete {folder / NAME} if you know that it has ended)"
            )
            announced = True
        time.sleep(min(BEAT_S, STALE_S) / 10)
    return claim


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"place": _place(), "host": platform.node(), "pid": pid, "started": _start_of(pid)}


def _place() -> str:
    """Where process numbers mean the same: a running system, and its name space of processes."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _start_of(pid: int) -> str | None:
    """When a process of this system began; None where there is none (one that has died is none)."""
    try:
        # In ticks since the system began: psutil's seconds follow a clock that is set.
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *fields = text.rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, IndexError, ValueError):
        pass
    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.Error:
        return None


def _read_written(path: Path) -> dict[str, Any] | None:
    """A claim, once it is written; {} where it never is, None where there is none any more."""
    until = time.monotonic() + PATIENCE_S
    while not (claim := _read(path)) and time.monotonic() < until:
        if not path.exists():
            return None
        time.sleep(PATIENCE_S / 50)
    return claim


def _read(path: Path) -> dict[str, Any]:
    """A claim; {} where there is none, or none that can be read."""
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _parsed(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    known = isinstance(content, dict) and {"place", "host", "started", "token"} <= set(content)
    return content if known and isinstance(content.get("pid"), int) else {}


def _holder(held: dict[str, Any]) -> str:
    return f"process {held['pid']} on {held['host']}" if held else "an unknown process"


def _lost(now: dict[str, Any]) -> str:
    return f"{_holder(now)} took it over" if now else f"its {NAME} was removed"


def _to_stderr(line: str) -> None:
    print(f"bnnrun: {line}", file=sys.stderr, flush=True)
