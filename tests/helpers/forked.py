"""`bnnrun WORD ...` in processes that begin in hundredths of a second, not in seconds.

A server process loads what `bnnrun train` needs, and each of these is its fork. Variables that
libraries read when they are loaded are the server's; tests of such variables start Python anew.
"""

import atexit
import multiprocessing
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
LOADED = ["bnnrun.cli.main", "bnnrun.cli.sweep", "bnnrun.cli.single", "bnnrun.train.loop",
          "bnnrun.nn.quantizers", "bnnrun.table", "pytest"]  # fmt: skip


def server() -> ForkServerContext:
    """Of multiprocessing; the forks of one session share their server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


class Forked:
    """A process, with what tests use of subprocess.Popen."""

    def __init__(self, words: tuple[str, ...], place: str, group: bool) -> None:
        pipes = [server().Pipe(duplex=False) for _ in range(2)]
        streams = [there for _, there in pipes]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = server().Process(
            target=_run,
            args=(words, Path.cwd(), environment, streams),
            kwargs={"place": place, "group": group},
        )
        self.process.start()
        self.stdout, self.stderr = (_reader(here) for here, _ in pipes)
        for stream in streams:
            stream.close()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self) -> tuple[str, str]:
        """What it wrote, to the end: until no process holds its output any more."""
        with self.stdout, self.stderr, ThreadPoolExecutor(2) as pool:
            out, err = pool.map(lambda stream: stream.read(), (self.stdout, self.stderr))
        self.wait()
        return out, err


def start(*words: str, place: str = "", group: bool = False) -> Forked:
    """`bnnrun WORD ...`, in the folder and with the environment of this process.

    Args:
        place: a name for this machine; others with another name take it for another machine
        group: in a process group of its own, as a terminal would start it
    """
    return Forked(words, place, group)


def _reader(pipe: Connection) -> IO[str]:
    with pipe:
        return os.fdopen(os.dup(pipe.fileno()), encoding="utf-8")


def _run(
    words: tuple[str, ...],
    folder: Path,
    environment: dict[str, str],
    streams: list[Connection],
    *,
    place: str,
    group: bool,
) -> None:
    """Be `bnnrun WORD ...` in a folder."""
    if group:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams, start=1):
        with stream:
            os.dup2(stream.fileno(), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)  # as for pipes

    from bnnrun import lock
    from bnnrun.cli.main import main

    if place:  # as if on another machine, with seconds for minutes
        lock.BEAT_S, lock.STALE_S, lock.PATIENCE_S = 0.1, 2.0, 0.2
        lock._place = lambda: place
    sys.argv = ["bnnrun", *words]
    try:
        main()
    finally:  # as an interpreter ends; multiprocessing leaves this out, and joblib's workers go on
        threading._shutdown()
        atexit._run_exitfuncs()
