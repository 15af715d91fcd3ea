"""The command line in this process, for tests that look at what it says and its status."""

import copy
import functools
import os
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
    """The typed configuration that the words make, the caller's own."""
    return copy.deepcopy(_configured(verb, words, os.environ.get("BNNRUN_DATA")))


@functools.cache  # Hydra takes a sixth of a second, and the sweep of engines asks for few again
def _configured(verb: str, words: tuple[str, ...], data: str | None) -> Any:
    """`data`: the one variable of the environment that a configuration holds."""
    return checked_config(VERBS[verb], list(words), multirun=False).typed
