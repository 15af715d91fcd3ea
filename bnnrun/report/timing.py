"""Times: the runs of `bnnrun bench` put together again, and the latest of every competitor."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bnnrun.records import Record
from bnnrun.report.content import Cell, Table
from bnnrun.report.pooling import record_notes
from bnnrun.report.speed import MACHINE, machine, where
from bnnrun.table import Column, Form, Number, Parts, Value, number

FLOAT32 = ("torch float32", "eager float32")  # of products and networks; of the training step
OTHERS = ("torch ", "NumPy ", *FLOAT32)  # competitors that are not ours, in every precision
KINDS = ("gemm", "mlp", "convnet", "train_step")
WORKLOAD = "workload m n k dataset images"  # of `workload` in CSV files


@dataclass
class Timed:
    """One run of `bnnrun bench`: its records by competitor."""

    kind: str
    size: tuple[Any, ...]
    machine: str
    device: str
    records: dict[str, Record] = field(default_factory=dict)

    @property
    def where(self) -> Parts:
        return where(next(iter(self.records.values())))

    @property
    def created(self) -> str:
        return max(record.created for record in self.records.values())

    def ratio(self, name: str, over: str) -> float | None:
        """How many times as fast `name` is as `over` in this run; by rates, where some rows of a
        product stand for all."""
        ours, theirs = self.records[name], self.records.get(over)
        if theirs is None:
            other = ours.details.get("in_the_same_run", {}).get(over)
            return other / ours.value if other else None
        rates = [record.details.get("gmac_per_s") for record in (ours, theirs)]
        if all(rates):
            return float(rates[0] / rates[1])  # type: ignore[operator]
        return theirs.value / ours.value if ours.value else None

    def fastest(self, wanted: Callable[[str], bool]) -> str | None:
        """The competitor of the highest rate among those wanted."""
        found = [name for name in self.records if wanted(name)]
        return min(found, key=self._seconds, default=None)

    def precision(self) -> str | None:
        """The fastest of all precisions that are not ours; None where only float32 was timed."""
        several = any(_is_other(name) and name not in FLOAT32 for name in self.records)
        return self.fastest(_is_other) if several else None

    def _seconds(self, name: str) -> float:
        rate = self.records[name].details.get("gmac_per_s")
        return 1 / rate if rate else self.records[name].value


def timed_runs(records: list[Record]) -> list[Timed]:
    """Records of times put together again as they were run, oldest first."""
    runs: dict[str, Timed] = {}
    for record in records:
        if not record.quantity.endswith("_time") or "competitor" not in record.details:
            continue
        kind, size = record.quantity.removesuffix("_time"), _size(record)
        run = json.dumps([record.command, record.source, machine(record), kind, size,
                          record.details.get("in_the_same_run")], sort_keys=True)  # fmt: skip
        each = runs.setdefault(run, Timed(kind, size, machine(record), record.device))
        each.records[record.details["competitor"]] = record
    return sorted(runs.values(), key=lambda run: run.created)


def _size(record: Record) -> tuple[Any, ...]:
    config = record.config
    if record.quantity == "gemm_time":
        return config["m"], config["n"], config["k"]
    data = config["dataset"]["name"]
    return (data,) if record.quantity == "train_step_time" else (data, config["batch"])


def workload(kind: str, size: tuple[Any, ...], text: str = "") -> Parts:
    """A workload by `text`, else as `described`; its sizes apart, as far as they are known."""
    sizes = size if kind == "gemm" else (None, None, None, *size)
    return Parts(text or described(kind, size), (kind, *sizes))


def described(kind: str, size: tuple[Any, ...]) -> str:
    """'product, M 4096, N 4096, K 1024' or 'mlp, mnist, 1,000 images'."""
    if kind == "gemm":
        return "product, M {}, N {}, K {}".format(*size)
    if kind == "train_step":
        return f"training step, {size[0]}"
    return f"{kind}, {size[0]}, {size[1]:,} image{'s' if size[1] > 1 else ''}"


def _is_other(name: str) -> bool:
    return name.startswith(OTHERS)


def is_ours(name: str) -> bool:
    return not name.startswith((*OTHERS, "limit", "baseline", "reference"))


def _same(name: str) -> str:
    """A competitor's name without what changes from run to run, such as a library's version."""
    return re.sub(r" \(.*\)$", "", name)


# ---- every competitor ------------------------------------------------------------------------


def times(runs: list[Timed]) -> Table:
    """A row for each competitor of a workload on a machine, its latest timing."""
    latest: dict[tuple[Any, ...], tuple[Timed, str]] = {}
    for run in runs:
        for name in run.records:
            latest[run.machine, run.kind, run.size, _same(name)] = run, name
    used = {id(run) for run, _ in latest.values()}
    rows = [_times_row(run, name) for run, name in sorted(latest.values(), key=_in_order)]
    older = len(runs) - len(used)
    return Table(
        name="times",
        title="Times: every competitor",
        columns=(
            Column("workload", WORKLOAD),
            Column("competitor"),
            Column("machine", MACHINE),
            Column("median", "median_ms", notes="notes"),
            Column("fastest", "fastest_ms"),
            Column("spread", "spread_pct"),
            Column("calls"),
            Column("GMAC/s", "gmac_per_s"),
            Column("of the limit", "of_limit_pct"),
            Column("over float32"),
            Column("date"),
        ),
        rows=tuple(rows),
        notes=(
            "Of each competitor the latest run. \"Over float32\" compares within that run, whose "
            "competitors were timed in turns. The limit is the fastest of the operations in "
            "registers (processor), or what the device's instructions allow (GPU).",
            f"Older runs of the same, whose records stand in runs/: {older}.",
        ),
    )  # fmt: skip


def _in_order(of: tuple[Timed, str]) -> tuple[Any, ...]:
    run, name = of
    place = KINDS.index(run.kind) if run.kind in KINDS else len(KINDS)
    size = tuple((str(part) if isinstance(part, str) else "", part if isinstance(part, int) else 0)
                 for part in run.size)  # fmt: skip
    group = 3 if name.startswith("limit") else 0 if is_ours(name) else 1
    return place, size, run.machine, group, name


def _times_row(run: Timed, name: str) -> tuple[Cell, ...]:
    record, details = run.records[name], run.records[name].details
    float32 = next((ratio for over in FLOAT32 if (ratio := run.ratio(name, over))), None)
    limit = name.startswith("limit")
    return (
        Cell(workload(run.kind, run.size)),
        Cell(name),
        Cell(run.where),
        Cell(Number(record.value, milliseconds), time_id("times", run, name),
             notes=tuple(record_notes(record)), records=(record.name,)),
        Cell(number(details.get("minimum"), milliseconds)),
        Cell(spread(details)),
        Cell(number(details.get("count"), "{}")),
        Cell(number(details.get("gmac_per_s"), _rate)),
        Cell("" if limit else of_limit(details)),
        Cell("" if limit else number(float32, times_as)),
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


def of_limit(details: dict[str, Any], form: Form = "{:.3g} %") -> Value:
    return number(details.get("share_of_limit"), form, scale=100)


def time_id(table: str, run: Timed, *more: str) -> str:
    """'times.gemm.8192-8192-8192.cpu.xnor-bits-out': letters, digits, hyphens between dots."""
    parts = [table, run.kind, "-".join(map(str, run.size)), run.machine, *more]
    return ".".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)
