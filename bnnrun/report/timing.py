"""Times: the runs of `bnnrun bench` put together again, and the newest time of every competitor."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bnnrun.records import Record
from bnnrun.report.content import Cell, Table
from bnnrun.report.machines import MACHINE, machine, where
from bnnrun.report.pooling import record_notes
from bnnrun.report.standing import newest
from bnnrun.report.workload import WORKLOAD, Work, work
from bnnrun.roles import YARDSTICK, Implementation, Role, shown
from bnnrun.table import Column, Form, Number, Parts, Value, number

OTHERS = Role.float32, Role.low_precision  # of other libraries, in every precision


@dataclass
class Timed:
    """One run of `bnnrun bench`.

    Attributes:
        records:  by competitor
        standing: the competitors of which no newer run has a record
    """

    work: Work
    machine: str
    device: str
    records: dict[Implementation, Record] = field(default_factory=dict)
    standing: list[Implementation] = field(default_factory=list)

    @property
    def workload(self) -> str:
        return self.work.workload

    @property
    def where(self) -> Parts:
        return where(next(iter(self.records.values())))

    @property
    def created(self) -> str:
        return max(record.created for record in self.records.values())

    def ratio(self, implementation: Implementation, over: Implementation) -> float | None:
        """How many times as fast an implementation is as `over` in this run; by rates, where some
        rows of a product stand for all. None of two different kinds of work.
        """
        ours, theirs = self.records[implementation], self.records.get(over)
        if theirs is None:
            other = ours.details.get("in_the_same_run", {}).get(over.key)
            return other / ours.value if other and ours.value else None
        rates = [record.details.get("gmac_per_s") for record in (ours, theirs)]
        if all(rates):
            return float(rates[0] / rates[1])  # type: ignore[operator]
        return theirs.value / ours.value if ours.value and not any(rates) else None

    def fastest(self, wanted: Callable[[Implementation], bool]) -> Implementation | None:
        """The competitor of the highest rate among those wanted."""
        candidates = [each for each in self.records if wanted(each)]
        return min(candidates, key=self._seconds, default=None)

    def precision(self) -> Implementation | None:
        """The fastest of other libraries in any precision; None where only one was timed."""
        several = any(each.role in OTHERS and each != YARDSTICK for each in self.records)
        return self.fastest(lambda each: each.role in OTHERS) if several else None

    def name(self, implementation: Implementation) -> str:
        """As readers see it, with what was particular to this run."""
        return shown(implementation, str(self.records[implementation].details.get("remark", "")))

    def _seconds(self, implementation: Implementation) -> float:
        rate = self.records[implementation].details.get("gmac_per_s")
        return 1 / rate if rate else self.records[implementation].value


def implementation(record: Record) -> Implementation:
    """The competitor of a record of a time; ValueError where this version knows none such."""
    details = record.details
    return Implementation.parse(f"{details.get('role')}:{details.get('variant')}")


def timed_runs(records: list[Record]) -> list[Timed]:
    """Records of times put together again as they were run, oldest first."""
    runs: dict[str, Timed] = {}
    times = [record for record in records if record.quantity.endswith("_time")]
    for record in times:
        timed_work = work(record)
        run = json.dumps([record.command, record.source, machine(record), timed_work.workload,
                          timed_work.size, timed_work.network,
                          record.details.get("in_the_same_run")],
                         sort_keys=True)  # fmt: skip
        each = runs.setdefault(run, Timed(timed_work, machine(record), record.device))
        each.records[implementation(record)] = record
    standing = {record.name for record in newest(times)}
    for timed in runs.values():
        timed.standing = [each for each, record in timed.records.items() if record.name in standing]
    return sorted(runs.values(), key=lambda run: run.created)


def standing_times(runs: list[Timed]) -> Iterator[tuple[Timed, Implementation]]:
    """Each competitor of a workload on a machine once, with the run of its newest record."""
    for run in runs:
        for implementation in run.standing:
            yield run, implementation


@dataclass(frozen=True)
class Ratio:
    """How many times as fast a competitor is as another in one run."""

    value: float
    over: Implementation
    run: Timed
    records: tuple[str, ...]

    @property
    def over_name(self) -> Parts:
        """'2.6x (torch int8)'."""
        return Parts(f"{times_as(self.value)} ({self.over.name})", (self.value, self.over.name))


def latest_ratio(
    runs: list[Timed],
    implementation: Implementation,
    over: Callable[[Timed], Implementation | None],
) -> Ratio | None:
    """In the latest of the runs that has both."""
    for run in reversed(runs):
        other = over(run) if implementation in run.records else None
        value = run.ratio(implementation, other) if other else None
        if other is not None and value is not None:
            names = tuple(sorted(run.records[each].name for each in (implementation, other)))
            return Ratio(value, other, run, names)
    return None


def fastest_float32(run: Timed) -> Implementation | None:
    """The fastest library in float32: PyTorch's own is twice as slow on some processors."""
    return run.fastest(lambda each: each.is_float32)


# ---- every competitor ------------------------------------------------------------------------


def times(runs: list[Timed]) -> Table:
    """A row for each competitor of a workload on a machine, its newest record."""
    rows = [_times_row(*each) for each in sorted(standing_times(runs), key=_in_order)]
    return Table(
        name="times",
        title="Times: every competitor",
        columns=(
            Column("workload", WORKLOAD),
            Column("competitor", "role variant remark"),
            Column("machine", MACHINE),
            Column("median", "median_ms", notes="notes"),
            Column("fastest", "fastest_ms"),
            Column("spread", "spread_pct"),
            Column("calls"),
            Column("GMAC/s", "gmac_per_s"),
            Column("of the roofline", "of_limit_pct"),
            Column("over torch float32", "over_float32"),
            Column("over the fastest peer"),
            Column("date"),
        ),
        rows=tuple(rows),
        notes=(
            "Of each competitor the newest record. \"Over\" compares within its run, whose "
            "competitors were timed in turns; peers are other libraries (`bench kernel=peers`). "
            "The roofline is the cheapest of the operations in registers and no more than the "
            "loads (processor), or what the device's instructions allow (GPU).",
        ),
    )  # fmt: skip


def _in_order(step: tuple[Timed, Implementation]) -> tuple[Any, ...]:
    run, each = step
    return *run.work.order, run.machine, *each.order


def _times_row(run: Timed, implementation: Implementation) -> tuple[Cell, ...]:
    record, details = run.records[implementation], run.records[implementation].details
    roofline = implementation.role is Role.roofline
    peer = run.fastest(lambda each: each.is_library)
    remark = str(details.get("remark", ""))
    return (
        Cell(run.work.value),
        Cell(Parts(run.name(implementation),
                   (implementation.role.value, implementation.variant, remark or None))),
        Cell(run.where),
        Cell(Number(record.value, milliseconds), time_id("times", run, implementation),
             notes=tuple(record_notes(record)), records=(record.name,)),
        Cell(number(details.get("minimum"), milliseconds)),
        Cell(spread(details)),
        Cell(number(details.get("count"), "{}")),
        Cell(number(details.get("gmac_per_s"), _rate)),
        Cell("" if roofline else roofline_share(details)),
        Cell("" if roofline else number(run.ratio(implementation, YARDSTICK), times_as)),
        Cell("" if roofline or peer is None else number(run.ratio(implementation, peer), times_as)),
        Cell(record.created[:10]),
    )  # fmt: skip


def milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:#.3g} ms"


def times_as(value: float) -> str:
    return f"{value:.0f}x" if value >= 20 else f"{value:.2g}x" if value < 1 else f"{value:.1f}x"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def spread(details: dict[str, Any], form: Form = "{:.0f} %") -> Value:
    return number(details.get("spread"), form, scale=100)


def roofline_share(details: dict[str, Any], form: Form = "{:.3g} %") -> Value:
    return number(details.get("share_of_limit"), form, scale=100)


def time_id(table: str, run: Timed, implementation: Implementation, *more: str) -> str:
    """'times.gemm.8192-8192-8192.cpu.ours-xnor-bits-out': letters, digits, hyphens between dots."""
    size = "-".join(map(str, (*run.work.size, run.work.network)))
    parts = [table, run.workload, size, run.machine, implementation.key, *more]
    return ".".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)
