"""A process of its own for a task: where it cannot be started, and where it ends by itself."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bnnrun.errors import RunError
from bnnrun.worker import worker


@dataclass(frozen=True)
class Doubling:
    """Answers with a number twice as large, or ends."""

    number: int

    @property
    def name(self):
        return "doubles a number"

    def open(self):
        print("a line that is no answer")
        return {"twice": lambda: 2 * self.number, "end": lambda: os._exit(3)}


@pytest.fixture(autouse=True)
def found(monkeypatch):
    """The process finds this module."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))


def test_it_answers_each_question():
    with worker(Doubling(21)) as process:
        assert process.ask("twice") == "42"
        assert process.ask("twice") == "42"


def test_one_that_ends_says_how():
    with worker(Doubling(21)) as process, pytest.raises(RunError) as raised:
        process.ask("end")
    assert "a process that doubles a number ended with status 3" in str(raised.value)


@pytest.mark.parametrize(("name", "value"), [("executable", ""), ("executable", None),
                                             ("frozen", True)])  # fmt: skip
def test_a_python_inside_another_program_starts_none(monkeypatch, name, value):
    """What its executable starts would be that program, not Python."""
    monkeypatch.setattr(sys, name, value, raising=False)
    with pytest.raises(RunError, match="no Python to start"), worker(Doubling(21)):
        pass
