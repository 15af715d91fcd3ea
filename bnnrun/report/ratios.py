"""Ratios of times: our kernels on the paper's workloads (Figure 3), and against size."""

import math
from collections.abc import Callable
from typing import Any

from bnnrun.paper import FIGURE3, FIGURE3_GPU, FIGURE3_RATIOS
from bnnrun.report.content import Cell, Table
from bnnrun.report.pooling import NOT_RUN, record_notes
from bnnrun.report.speed import MACHINE, crossover
from bnnrun.report.timing import (
    FLOAT32,
    WORKLOAD,
    Timed,
    is_ours,
    milliseconds,
    of_limit,
    spread,
    time_id,
    times_as,
    workload,
)
from bnnrun.table import Column, Number, Parts

# What Figure 3 and its like are measured on: the workload's name in a record, and its size.
HEADLINES = {
    "gemm": ("product of two 8192 x 8192 matrices", (8192, 8192, 8192)),
    "mlp": ("MNIST network, 10,000 images", ("mnist", 10_000)),
    "convnet": ("ConvNet", ("cifar10",)),
    "train_step": ("training step", ("mnist",)),
}


# ---- Figure 3: our kernels -------------------------------------------------------------------


def figure3(runs: list[Timed]) -> Table:
    """A row for each of our kernels on the paper's workloads, its ratios within one run."""
    rows = []
    for kind, (title, size) in HEADLINES.items():
        fitting = [run for run in runs if run.kind == kind and run.size[: len(size)] == size]
        largest = max((run.size for run in fitting), default=())
        fitting = [run for run in fitting if run.size == largest]
        for device in ("cpu", "cuda"):
            of_device = [run for run in fitting if run.device == device]
            rows += _figure3_rows(kind, title, of_device) or [_figure3_not_run(kind, title, device)]
    gemm = ", ".join(FIGURE3["gemm", kernel].text for kernel in ("baseline", "blas", "xnor"))
    mlp = ", ".join(FIGURE3["mlp", kernel].text for kernel in ("baseline", "blas", "xnor"))
    return Table(
        name="figure3",
        title="Times of our kernels (the paper's Figure 3)",
        columns=(
            Column("workload", WORKLOAD),
            Column("kernel"),
            Column("machine", MACHINE),
            Column("median", "median_ms", verdict="verdict", notes="notes"),
            _ratio_column("over baseline"),
            _ratio_column("over float32"),
            Column("over the best precision", "over_best best_precision",
                   verdict="over_best_verdict"),
            Column("of the limit", "of_limit_pct"),
            Column("spread", "spread_pct"),
            Column("date"),
        ),
        rows=tuple(rows),
        notes=(
            f"The paper's ratios are a {FIGURE3_GPU}'s, whose bars read {gemm} s (baseline, "
            f"cuBLAS, XNOR) for the product and {mlp} s for the network. They are context and no "
            "target: another machine multiplies floats and counts bits at other rates.",
            "The baseline is the unoptimized float32 product, the best precision the fastest of "
            "PyTorch and NumPy in any. The paper's product packs both operands on the clock, ours "
            "with \"float32 in\" packs A: weights are packed once. Each ratio is of one run; where "
            "the latest has no such competitor, of the latest that has.",
        ),
    )  # fmt: skip


def _ratio_column(title: str) -> Column:
    name = title.replace(" ", "_")
    return Column(title, name, paper=f"paper_{name}", verdict=f"{name}_verdict")


def _figure3_rows(kind: str, title: str, runs: list[Timed]) -> list[tuple[Cell, ...]]:
    rows = []
    for where in sorted({run.machine for run in runs}):
        on = [run for run in runs if run.machine == where]
        names = sorted({name for run in on for name in run.records if is_ours(name)})
        rows += [_figure3_row(kind, title, name, on) for name in names]
    return rows


def _figure3_row(kind: str, title: str, name: str, runs: list[Timed]) -> tuple[Cell, ...]:
    run = [run for run in runs if name in run.records][-1]
    record = run.records[name]
    what = title if kind != "convnet" else f"{title}, {run.size[1]:,} images"
    # The authors' product packs on the clock; their network packs activations, as ours does.
    packs = kind == "mlp" or (kind == "gemm" and "float32 in" in name)

    def ratio(measure: str, over: Callable[[Timed], str | None]) -> Cell:
        of = time_id("figure3", run, name, measure)
        printed = FIGURE3_RATIOS.get((kind, measure)) if packs else None
        said = Parts(f"{printed.text}x", (printed.value,)) if printed else ""
        found = _latest_ratio(runs, name, over)
        if found is None:
            return Cell("", of, said, "" if kind == "train_step" else NOT_RUN)
        value, other, records = found
        shown = _over_other(value, other) if measure == "best" else Number(value, times_as)
        return Cell(shown, of, said, records=records)

    return (
        Cell(workload(kind, run.size, what)),
        Cell(name),
        Cell(run.where),
        Cell(Number(record.value, milliseconds), time_id("figure3", run, name),
             records=(record.name,),
             notes=tuple(record_notes(record))),
        ratio("baseline", lambda each: each.fastest(lambda n: n.startswith("baseline"))),
        ratio("blas", _float32),
        ratio("best", Timed.precision),
        Cell(of_limit(record.details)),
        Cell(spread(record.details)),
        Cell(record.created[:10]),
    )  # fmt: skip


def _over_other(value: float, other: str) -> Parts:
    """'2.6x (torch int8)'."""
    return Parts(f"{times_as(value)} ({other})", (value, other))


def _float32(run: Timed) -> str | None:
    return run.fastest(lambda name: name in FLOAT32)


def _latest_ratio(
    runs: list[Timed], name: str, over: Callable[[Timed], str | None]
) -> tuple[float, str, tuple[str, ...]] | None:
    """(how many times as fast, as what, the two records) in the latest run that has both."""
    for run in reversed(runs):
        other = over(run) if name in run.records else None
        value = run.ratio(name, other) if other else None
        if other is not None and value is not None:
            return value, other, tuple(sorted(run.records[n].name for n in (name, other)))
    return None


def _figure3_not_run(kind: str, title: str, device: str) -> tuple[Cell, ...]:
    where = "GPU" if device == "cuda" else "processor"
    cell = Cell("", f"figure3.{kind}.{device}", verdict=NOT_RUN)
    return (
        Cell(workload(kind, HEADLINES[kind][1], title)),
        Cell(""),
        Cell(where),
        cell,
        *[Cell("")] * 6,
    )


# ---- speed-up against size -------------------------------------------------------------------


def speedup(runs: list[Timed]) -> Table:
    """Our fastest kernel over float32 and the best precision by size, and where it overtakes."""
    same: dict[tuple[Any, ...], list[Timed]] = {}
    for run in runs:
        if any(map(is_ours, run.records)) and run.kind != "train_step":
            same.setdefault((run.machine, run.kind, run.size), []).append(run)
    rows = []
    curves: dict[tuple[str, str], dict[float, float]] = {}
    for of in sorted(same.values(), key=lambda r: (r[-1].machine, r[-1].kind, _volume(r[-1]))):
        last = of[-1]
        packed = last.fastest(lambda n: is_ours(n) and "float32 in" not in n)
        packing = last.fastest(lambda n: is_ours(n) and "float32 in" in n)
        best = _latest_ratio(of, packed, Timed.precision) if packed else None
        rows.append(
            (
                Cell(last.where),
                Cell(workload(last.kind, last.size)),
                _speedup_cell(of, packed, _float32),
                _speedup_cell(of, packing, _float32),
                Cell(_over_other(*best[:2]) if best else "",
                     records=best[2] if best else ()),
            )
        )  # fmt: skip
        counted = packing if last.kind == "gemm" else packed
        found = _latest_ratio(of, counted, _float32) if counted else None
        if found is not None:
            size = round(_volume(last) ** (1 / 3)) if last.kind == "gemm" else _volume(last)
            curves.setdefault((last.machine, last.kind), {})[float(size)] = found[0]
    return Table(
        name="speedup",
        title="Speed-up against size",
        columns=(
            Column("machine", MACHINE),
            Column("workload", WORKLOAD),
            Column("packed operands, over float32", "packed_over_float32"),
            Column("packing of A timed, over float32", "packing_over_float32"),
            Column("over the best precision", "over_best best_precision"),
        ),
        rows=tuple(rows),
        notes=tuple(_crossing(*of, curve) for of, curve in sorted(curves.items())),
    )  # fmt: skip


def _volume(run: Timed) -> int:
    """Multiply-accumulates of a product, images of a network."""
    return math.prod(run.size) if run.kind == "gemm" else int(run.size[1])


def _speedup_cell(runs: list[Timed], name: str | None, over: Callable[[Timed], str | None]) -> Cell:
    found = _latest_ratio(runs, name, over) if name else None
    if name is None or found is None:
        return Cell("")
    of = time_id("speedup", runs[-1], name)
    return Cell(Number(found[0], times_as), of, records=found[2])


def _crossing(where: str, kind: str, curve: dict[float, float]) -> str:
    _, words = crossover(tuple(sorted(curve)), tuple(curve[x] for x in sorted(curve)))
    measure = ("products with packing of A, by the cube root of M N K" if kind == "gemm"
               else f"{kind}, by images")  # fmt: skip
    return f"{where}, {measure}: {words}."
