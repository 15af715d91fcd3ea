"""Training steps: their time, their memory, and where the time goes."""

from typing import Any

from bnnrun.records import Record
from bnnrun.report.content import Cell, Table
from bnnrun.report.pooling import record_notes
from bnnrun.report.timing import Timed, formed, is_ours, milliseconds, time_id, times_as

FLOAT32 = "eager float32"


def steps(runs: list[Timed]) -> Table:
    """A row for each step of the latest run of a network on a machine, and one for the floor."""
    latest: dict[tuple[Any, ...], Timed] = {}
    for run in runs:
        if run.kind == "train_step" and any(map(_has_parts, run.records.values())):
            latest[run.size, run.machine, run.device] = run
    parts: list[str] = []
    for run in latest.values():
        for record in run.records.values():
            parts += [name for name in record.details.get("parts_ms", {}) if name not in parts]
    rows = [row for _, run in sorted(latest.items()) for row in _rows(run, parts)]
    return Table(
        name="steps",
        title="Training steps: time, memory, and where the time goes",
        columns=("network of", "step", "machine", "median", "over eager float32", "MiB at most",
                 *parts, "date"),
        rows=tuple(rows),
        notes=(
            "The latest run. Plain PyTorch is timed as it comes, and with freed memory kept, as "
            "our training asks the C library to. Memory is what network and steps add to a process "
            "of their own at most. Parts are of one step under a profiler, the floor each part's "
            "operations and bytes at the rates measured in the same run; what lies between the "
            "products counts as nothing there.",
        ),
    )  # fmt: skip


def _has_parts(record: Record) -> bool:
    return "parts_ms" in record.details


def _rows(run: Timed, parts: list[str]) -> list[tuple[Cell, ...]]:
    rows = []
    names = [name for name in run.records if is_ours(name) or name.startswith(FLOAT32)]
    for name in sorted(names):
        record, details = run.records[name], run.records[name].details
        spent, least = details.get("parts_ms", {}), details.get("floor_ms", {})
        over = run.ratio(name, FLOAT32)
        rows.append((
            Cell(run.size[0]),
            Cell(name),
            Cell(run.machine),
            Cell(milliseconds(record.value), time_id("steps", run, name),
                 notes=tuple(record_notes(record)), records=(record.name,)),
            Cell(formed(over, times_as)),
            Cell(formed(details.get("memory_bytes"), lambda x: f"{x / 2**20:,.0f}")),
            *(Cell(formed(spent.get(part), _part)) for part in parts),
            Cell(record.created[:10]),
        ))  # fmt: skip
        if least:
            whole = sum(least.values())
            rows.append((
                Cell(run.size[0]),
                Cell(f"{name}: its floor, {100 * whole / record.value:.0f} % of it"),
                Cell(run.machine),
                Cell(milliseconds(whole), time_id("steps", run, name, "floor"),
                     records=(record.name,)),
                Cell(""),
                Cell(""),
                *(Cell(formed(least.get(part), _part)) for part in parts),
                Cell(record.created[:10]),
            ))  # fmt: skip
    return rows


def _part(value: float) -> str:
    return f"{value:.1f}"
