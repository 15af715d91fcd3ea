"""Kernels compiled before they are called, by several processes at once.

Numba compiles one function at a time in a process, and for the types of its arguments. So what is
about to run is run once with its kernels' calls noted; this process and others share those out, and
what others compiled this one takes from the cache.
"""

import importlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bnnrun.errors import RunError
from bnnrun.gemm.compiled import Call, cache_folder, noted_calls
from bnnrun.worker import worker

log = logging.getLogger("bnnrun.kernels")


def compile_ahead(run: Callable[[], object], processes: int) -> None:
    """Compile the kernels that `run` calls, those that the cache lacks by several processes.

    Args:
        run: is called once, and the kernels that it calls do not run: what it computes by them has
            no meaning, so it must change nothing that is used afterwards
        processes: as many at most, this one included; without a cache this one alone compiles
    """
    with noted_calls() as calls:
        run()
    missing = [call for call in calls if not call.is_kept()]
    # The longest first, so that the processes end together; the length is a guess.
    missing.sort(key=lambda call: -len(call.kernel.function.__code__.co_code))
    queue = deque(range(len(missing)))
    # A process takes as long to start as to compile a kernel: it is worth it for two.
    others = min(processes, len(missing) // 2) - 1 if cache_folder() else 0
    threads = [threading.Thread(target=_help, args=(missing, queue)) for _ in range(others)]
    for thread in threads:
        thread.start()
    try:
        for i in _taken(queue):
            missing[i].compile()
    finally:
        queue.clear()
        for thread in threads:
            thread.join()
    for call in calls:
        call.compile()  # or load what another process compiled


def _taken(queue: deque[int]) -> Iterator[int]:
    with suppress(IndexError):
        while True:
            yield queue.popleft()


def _help(calls: list[Call], queue: deque[int]) -> None:
    """Have another process compile calls of the queue; where it fails, this one does at the end."""
    jobs = tuple(map(_Job.of, calls))
    try:
        with worker(_Compiling(jobs)) as process:
            for i in _taken(queue):
                log.info("compiling %s", jobs[i].name)
                process.ask(str(i))
                log.info("compiled %s", jobs[i].name)
    except (RunError, OSError) as error:
        log.info("no other process compiles: %s", error)


@dataclass(frozen=True)
class _Job:
    """A call, in a form for another process."""

    module: str
    name: str
    types: tuple[Any, ...]

    @classmethod
    def of(cls, call: Call) -> "_Job":
        function = call.kernel.function
        return cls(function.__module__, function.__name__, call.types)

    def compile(self) -> str:
        kernel = getattr(importlib.import_module(self.module), self.name)
        Call(kernel, self.types).compile()
        return "compiled"


@dataclass(frozen=True)
class _Compiling:
    """What another process does: it compiles the job that it is asked for, by number."""

    jobs: tuple[_Job, ...]

    @property
    def name(self) -> str:
        return "compiles kernels"

    def open(self) -> dict[str, Callable[[], object]]:
        return {str(i): job.compile for i, job in enumerate(self.jobs)}
