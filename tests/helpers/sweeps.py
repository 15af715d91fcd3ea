"""What sweeps of short runs on digits leave, and say, while they run and at their end."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from forked import Forked


def wait_for(is_there: Callable[[], object], process: Forked) -> None:
    """Until something is found, while the process runs."""
    until = time.monotonic() + 120
    while not is_there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def rows(out: str) -> list[tuple[str, str, str]]:
    """(settings, outcome, test error) of each job in the table that ends a sweep."""
    table = out[out.rindex("outcome  ") :]
    outcomes = "done|resumed|skipped|failed|stopped|running|not begun"
    return re.findall(rf"^ +\d+  (\S.*?) +({outcomes}) *([\d.]*)", table, re.MULTILINE)


def records() -> list[dict]:
    """Every record here, by its file's name."""
    paths = sorted(Path("results/runs").glob("*.json"))
    return [json.loads(path.read_text()) for path in paths]


def errors_by_batch_size() -> dict[int, float]:
    """The records' test errors; each job's once."""
    values = [(r["config"]["trainer"]["batch_size"], r["value"]) for r in records()]
    assert len(dict(values)) == len(values)
    return dict(values)


def holders() -> dict[str, int]:
    """The process at work in each run folder."""
    processes = {}
    for path in Path("outputs/sweeps").glob("digits*/.run-lock"):
        try:
            processes[path.parent.name] = json.loads(path.read_text())["pid"]
        except (OSError, ValueError):
            continue
    return processes
