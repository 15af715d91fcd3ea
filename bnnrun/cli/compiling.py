"""Says that kernels are being compiled, which takes some seconds at the first run and is silent."""

import logging
import sys

LINE = "compiling kernels for this processor (first run only)"


def announce_compiling() -> None:
    """Tell on stderr what `bnnrun.kernels` logs: a line, and on a terminal each kernel's name."""
    logger = logging.getLogger("bnnrun.kernels")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Announcer())


class _Announcer(logging.Handler):
    """One line for all of them; on a terminal it stands while a kernel is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Tell of the beginning or the end of one kernel."""
        begins = record.msg.startswith("compiling")
        self.count += begins
        moves = sys.stderr is not None and sys.stderr.isatty()
        if begins and self.count == 1 and not moves:
            print(LINE, file=sys.stderr, flush=True)
        if moves:
            shown = f"{LINE}: {self.count}, {record.args[0]}" if begins else ""  # type: ignore[index]
            print(f"\r\x1b[2K{shown}", end="", file=sys.stderr, flush=True)
