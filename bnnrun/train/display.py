"""What a training run shows: a line an epoch, and a moving bar where there is a terminal."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("bnnrun")


class Display:
    """Prints lines to the terminal and to the run's log; plain lines where there is no terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._bar: Progress | None = None

    def line(self, text: str) -> None:
        """Print one line, above the bar if one is moving."""
        log.info(text)
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def epoch(self, epoch: int, epochs: int, steps: int, done: int) -> Iterator["Display"]:
        """A bar over the steps of one epoch, `done` of them already."""
        if not self.console.is_terminal:
            yield self
            return
        columns = (
            TextColumn("epoch {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps, epoch ends in"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            self._bar = bar
            self._task = bar.add_task(f"{epoch}/{epochs}", total=steps, completed=done)
            try:
                yield self
            finally:
                self._bar = None

    def step(self, done: int) -> None:
        """Move the bar to `done` steps."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done)


def duration(seconds: float) -> str:
    """3725 -> '1:02:05'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
