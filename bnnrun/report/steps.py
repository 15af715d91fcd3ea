"""Training steps: their time, their memory, and where the time goes."""

from typing import Any

from bnnrun.records import Record
from bnnrun.report.content import Cell, Table
from bnnrun.report.pooling import record_notes
from bnnrun.report.speed import MACHINE
from bnnrun.report.timing import Timed, is_ours, milliseconds, time_id, times_as
from bnnrun.table import Column, Number, Parts, Value, identifier, number

FLOAT32 = "eager float32"
PART = "{:.1f}"  # milliseconds of a part


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
        columns=(
            Column("network of", "dataset"),
            Column("step", "step is_floor floor_pct"),
            Column("machine", MACHINE),
            Column("median", "median_ms", notes="notes"),
            Column("over eager float32"),
            Column("MiB at most", "memory_mib"),
            *(Column(part, f"{identifier(part)}_ms") for part in parts),
            Column("date"),
        ),
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
            Cell(Parts(name, (name, False))),
            Cell(run.where),
            Cell(Number(record.value, milliseconds), time_id("steps", run, name),
                 notes=tuple(record_notes(record)), records=(record.name,)),
            Cell(number(over, times_as)),
            Cell(_mebibytes(details.get("memory_bytes"))),
            *(Cell(number(spent.get(part), PART)) for part in parts),
            Cell(record.created[:10]),
        ))  # fmt: skip
        if least:
            whole = sum(least.values())
            share = 100 * whole / record.value
            rows.append((
                Cell(run.size[0]),
                Cell(Parts(f"{name}: its floor, {share:.0f} % of it", (name, True, share))),
                Cell(run.where),
                Cell(Number(whole, milliseconds), time_id("steps", run, name, "floor"),
                     records=(record.name,)),
                Cell(""),
                Cell(""),
                *(Cell(number(least.get(part), PART)) for part in parts),
                Cell(record.created[:10]),
            ))  # fmt: skip
    return rows


def _mebibytes(size: object) -> Value:
    return number(size / 2**20 if isinstance(size, (int, float)) else None, "{:,.0f}")
