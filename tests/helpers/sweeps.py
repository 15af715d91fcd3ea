"""Sweeps of short runs on digits in processes of their own, and what they leave."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
# As if on another machine, with seconds for minutes: LAUNCH_ELSEWHERE NAME WORD ...
ELSEWHERE = """
import sys
from bnnrun import lock
from bnnrun.cli.main import main

lock.BEAT_S, lock.STALE_S, lock.PATIENCE_S = 0.1, 2.0, 0.2
place = sys.argv.pop(1)
lock._place = lambda: place
main()
"""


def start(*words: str, place: str = "", group: bool = False) -> subprocess.Popen:
    """`bnnrun WORD ...`, from a `place` that takes others for other machines if one is named.

    Args:
        group: in a process group of its own, as a terminal would start it
    """
    program = ["-c", ELSEWHERE, place] if place else ["-m", "bnnrun"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}
    return subprocess.Popen(
        [sys.executable, *program, *words],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=group,
    )  # fmt: skip


def wait_for(is_there: Callable[[], object], process: subprocess.Popen) -> None:
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
