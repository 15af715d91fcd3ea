"""A process of its own for a task: its memory, its threads, its libraries, its lock are its own.

Threads of one runtime that wait in a loop take the cores from another's, some libraries choose
their kernels once, when they are loaded, and Numba compiles one kernel at a time. Run as a module
it is that process: it reads a `Task` from the file named, then answers each line on its input.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bnnrun.errors import RunError


class Task(Protocol):
    """What a process does; it can be pickled."""

    @property
    def name(self) -> str:
        """What the process does, for messages: 'times a training step'."""

    def open(self) -> Mapping[str, Callable[[], object]]:
        """In the process, once: what answers each question."""


@dataclass(frozen=True)
class SharedArray:
    """An array in a file that several processes map."""

    path: str
    shape: tuple[int, ...]
    dtype: str

    def open(self) -> NDArray[Any]:
        """The array itself."""
        return np.memmap(self.path, self.dtype, "r+", shape=self.shape)


@contextmanager
def shared(*arrays: NDArray[Any]) -> Iterator[list[SharedArray]]:
    """Copies of arrays in files, in memory where possible, within the block."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        files = []
        for i, array in enumerate(arrays):
            files.append(SharedArray(str(Path(folder) / str(i)), array.shape, array.dtype.str))
            np.memmap(files[-1].path, array.dtype, "w+", shape=array.shape)[...] = array
        yield files


class Worker:
    """A task's process. RunError, with the process's last words, where it ends by itself."""

    def __init__(self, process: subprocess.Popen[str], stderr: Path, name: str) -> None:
        self.process, self.stderr, self.name = process, stderr, name

    def ask(self, question: str) -> str:
        """The answer, as text; one line."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(f"{question}\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            return answer.strip()
        status = self.process.wait()
        last = self.stderr.read_text(encoding="utf-8", errors="replace").split("\n")[-2:-1]
        raise RunError(f"a process that {self.name} ended with status {status}: "
                       f"{last[0] if last else 'it said nothing'}")  # fmt: skip


@contextmanager
def worker(task: Task, environment: Mapping[str, str] | None = None) -> Iterator[Worker]:
    """The process of a task within the block; it starts while this one goes on.

    Raises:
        RunError: there is no Python to start: this one is part of another program
    """
    if not sys.executable or hasattr(sys, "frozen"):
        raise RunError(f"no Python to start a process with that {task.name}")
    with tempfile.TemporaryDirectory() as folder:
        path, said = Path(folder) / "task", Path(folder) / "stderr"
        path.write_bytes(pickle.dumps(task))
        with (
            said.open("w", encoding="utf-8") as stderr,
            subprocess.Popen(
                [sys.executable, "-m", "bnnrun.worker", str(path)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, encoding="utf-8",
                env={**os.environ, **(environment or {})},
            ) as process,
        ):  # fmt: skip
            try:
                yield Worker(process, said, task.name)
            finally:
                process.kill()
                assert process.stdin is not None
                with suppress(BrokenPipeError):  # a question that it died before
                    process.stdin.close()


def _serve(path: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends this process
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anything prints is no answer
    task: Task = pickle.loads(path.read_bytes())
    by_question = task.open()
    for line in sys.stdin:
        print(by_question[line.strip()](), file=answers, flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
