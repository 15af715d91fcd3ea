"""What is printed to: a terminal, a file or a pipe, of any encoding; it may go away before a run.

`| tee` is killed, `| less` left, a connection drops: what can no longer be shown is left out; the
run's log and its record are files.
"""

import logging
import os
import signal
import sys
from types import FrameType
from typing import Any, TextIO

log = logging.getLogger("bnnrun")


def prepare() -> None:
    """Have characters that the output cannot hold shown escaped: a ± never fails a run."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def outlast() -> None:
    """Have this process go on when nobody reads what it prints, or its terminal is closed."""
    # A full disk under the log costs no run either, and no traceback for each line.
    logging.raiseExceptions = False
    if sys.stdout is not None:
        sys.stdout = _Lasting(sys.stdout, "standard output")
    if sys.stderr is not None:
        sys.stderr = _Lasting(sys.stderr, "standard error")
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _hung_up)  # ignored already under nohup


def _hung_up(number: int, frame: FrameType | None) -> None:
    log.warning("the terminal was closed (SIGHUP); the run goes on")


class _Lasting:
    """A text stream whose reader may go away; otherwise as the stream itself."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name

    def write(self, text: str) -> int:
        """`text`, or nothing where nobody takes it."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """What was written before, likewise."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        """Nowhere from now on; what the stream still holds would be tried again at its end."""
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except OSError:
            return
        log.warning("%s was lost (%s); the run goes on", self._name, error.strerror)
