"""The command line in this process, for tests that look at what it says and its status."""

from dataclasses import dataclass
from typing import Any

import pytest

from bnnrun.cli.compose import checked_config
from bnnrun.cli.main import run
from bnnrun.cli.verbs import VERBS


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


class Command:
    """`bnnrun WORD ...`, returning status, output and errors."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: object) -> Outcome:
        self.capsys.readouterr()
        status = run([str(word) for word in words])
        captured = self.capsys.readouterr()
        return Outcome(status, captured.out, captured.err)


def configure(verb: str, *words: str) -> Any:
    """The typed configuration that the words make."""
    return checked_config(VERBS[verb], list(words), multirun=False).typed
