"""Ctrl-C, SIGTERM and SLURM's signals as a request that the loop answers between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# SLURM sends what `--signal` names, submitit SIGUSR2 or SIGUSR1, some time before a job's end.
SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]


class StopRequest:
    """False until the user asks to stop; a second Ctrl-C no longer waits for the step to end.

    Attributes:
        number: the signal that asked; 0: none did
    """

    def __init__(
        self,
        elsewhere: Callable[[], bool] = lambda: False,
        on_ask: Callable[[], None] = lambda: None,
    ) -> None:
        """`elsewhere` tells whether another process was asked; `on_ask` is called at a signal."""
        self.number, self._elsewhere, self._on_ask = 0, elsewhere, on_ask

    def __bool__(self) -> bool:
        return self.number != 0 or self._elsewhere()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        self._on_ask()


@contextmanager
def stop_request(request: StopRequest | None = None) -> Iterator[StopRequest]:
    """Catch the signals that ask for an end while the block runs.

    An exception in the middle of an update would leave half a step in the weights. Within such a
    block the request is the outer one's: what stops one job stops the sweep that it belongs to.
    After it a signal goes on to the handler that stood there before, if a library had set one:
    submitit's has the job queue again.
    """
    outer = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    if isinstance(outer, StopRequest):
        yield outer
        return
    request = StopRequest() if request is None else request
    if threading.current_thread() is not threading.main_thread():
        yield request  # signals reach the main thread alone
        return
    before = {number: signal.signal(number, request._handle) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        handler = before.get(request.number)
        if callable(handler) and handler is not signal.default_int_handler:
            handler(request.number, None)
