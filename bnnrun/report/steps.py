"""Training steps: their time, their memory, and where the time goes."""

from bnnrun.report.content import Cell, Table
from bnnrun.report.machines import MACHINE
from bnnrun.report.pooling import record_notes
from bnnrun.report.timing import Timed, milliseconds, standing_times, time_id, times_as
from bnnrun.report.workload import WORKLOAD, Work
from bnnrun.roles import YARDSTICK, Implementation, Role
from bnnrun.table import Column, Number, Parts, Value, identifier, number

PART_FORMAT = "{:.1f}"  # milliseconds of a part


def steps(runs: list[Timed]) -> Table:
    """A row for each step of a network on a machine, its newest record, and one of its roofline."""
    by_workload: dict[tuple[Work, str], list[tuple[Timed, Implementation]]] = {}
    for run, implementation in standing_times(runs):
        details = run.records[implementation].details
        is_shown = implementation.role is Role.float32 or "parts_ms" in details
        if run.workload == "train_step" and is_shown:
            by_workload.setdefault((run.work, run.machine), []).append((run, implementation))
    of_ours = [
        sorted(each, key=lambda step: step[1].name)
        for _, each in sorted(by_workload.items(), key=lambda item: (item[0][0].order, item[0][1]))
        if any(implementation.role is Role.ours for _, implementation in each)
    ]
    parts = {
        name: None
        for each in of_ours
        for run, implementation in each
        for name in run.records[implementation].details.get("parts_ms", {})
    }
    rows = [row for each in of_ours for step in each for row in _rows(*step, list(parts))]
    return Table(
        name="steps",
        title="Training steps: time, memory, and where the time goes",
        columns=(
            Column("network", WORKLOAD),
            Column("step", "role variant is_floor floor_pct"),
            Column("machine", MACHINE),
            Column("median", "median_ms", notes="notes"),
            Column("over float32"),
            Column("MiB at most", "memory_mib"),
            *(Column(part, f"{identifier(part)}_ms") for part in parts),
            Column("date"),
        ),
        rows=tuple(rows),
        notes=(
            "Of each step the newest record. Plain PyTorch is timed as it comes, and with freed "
            "memory kept, as our training asks the C library to. Memory is what network and steps "
            "add to a process of their own at most. Parts are of one step under a profiler, the "
            "roofline each part's operations and bytes at the rates measured in the same run; what "
            "lies between the products counts as nothing there.",
        ),
    )  # fmt: skip


def _rows(run: Timed, implementation: Implementation, parts: list[str]) -> list[tuple[Cell, ...]]:
    record, details = run.records[implementation], run.records[implementation].details
    spent, least = details.get("parts_ms", {}), details.get("floor_ms", {})
    network = run.work.named(", ".join(filter(None, (run.work.size[0], run.work.network))))
    rows = [(
        Cell(network),
        Cell(Parts(implementation.name,
                   (implementation.role.value, implementation.variant, False))),
        Cell(run.where),
        Cell(Number(record.value, milliseconds), time_id("steps", run, implementation),
             notes=tuple(record_notes(record)), records=(record.name,)),
        Cell(number(run.ratio(implementation, YARDSTICK), times_as)),
        Cell(_mebibytes(details.get("memory_bytes"))),
        *(Cell(number(spent.get(part), PART_FORMAT)) for part in parts),
        Cell(record.created[:10]),
    )]  # fmt: skip
    if least:
        roofline_ms = sum(least.values())
        share = 100 * roofline_ms / record.value
        rows.append((
            Cell(network),
            Cell(Parts(f"{implementation.name}: its roofline, {share:.0f} % of it",
                       (implementation.role.value, implementation.variant, True, share))),
            Cell(run.where),
            Cell(Number(roofline_ms, milliseconds), time_id("steps", run, implementation, "floor"),
                 records=(record.name,)),
            Cell(""),
            Cell(""),
            *(Cell(number(least.get(part), PART_FORMAT)) for part in parts),
            Cell(record.created[:10]),
        ))  # fmt: skip
    return rows


def _mebibytes(size: object) -> Value:
    return number(size / 2**20 if isinstance(size, (int, float)) else None, "{:,.0f}")
