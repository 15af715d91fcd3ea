"""Figure 3: our kernels on the paper's workloads, over the baseline and over float32.

`kernels` computes it, once; the table, the drawing and the README show what it found.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bnnrun import paper
from bnnrun.paper import FIGURE3, FIGURE3_GPU, FIGURE3_RATIOS
from bnnrun.report.content import Cell, Figure, Panel, Series, Table
from bnnrun.report.machines import MACHINE
from bnnrun.report.pooling import NOT_RUN, record_notes
from bnnrun.report.timing import (
    Ratio,
    Timed,
    fastest_float32,
    latest_ratio,
    milliseconds,
    roofline_share,
    spread,
    standing_times,
    time_id,
    times_as,
)
from bnnrun.report.workload import WORKLOAD, Work
from bnnrun.roles import PACK_BITS, Form, Implementation, Role
from bnnrun.table import Column, Number, Parts

BARS = ("baseline", "float32", "XNOR")
# By workload a title and the work: the paper's product and network, and what we add to them, its
# ConvNet of as many images as were timed at most, and a training step of its MNIST network.
HEADLINES = {
    "gemm": ("product of two 8192 x 8192 matrices", Work("gemm", (8192, 8192, 8192))),
    "mlp": (
        "MNIST network, 10,000 images",
        Work("mlp", ("mnist", 10_000), "mlp 3 x 4096"),
    ),
    "convnet": ("ConvNet", Work("convnet", ("cifar10",), "convnet 2x128-2x256-2x512-2x1024")),
    "train_step": (
        "training step",
        Work("train_step", ("mnist",), "mlp 3 x 4096, batch 100"),
    ),
}


@dataclass(frozen=True)
class Kernel:
    """One of our kernels on one of the paper's workloads, on one machine.

    Attributes:
        title:         of the workload
        run:           of the kernel's newest record
        over_baseline: over the unoptimized float32 product; None where no run has both
        over_float32:  over the fastest library in float32, cuBLAS in the paper
        over_best:     over the fastest of other libraries in any precision
    """

    title: str
    run: Timed
    implementation: Implementation
    over_baseline: Ratio | None
    over_float32: Ratio | None
    over_best: Ratio | None

    @property
    def time_s(self) -> float:
        return self.run.records[self.implementation].value / 1e3

    @property
    def as_the_papers(self) -> bool:
        """Whether it is timed as the authors did: the product packs on the clock, the network packs
        its activations.
        """
        if self.run.workload == "gemm":
            return self.implementation.form is Form.packing
        return self.run.workload == "mlp"


def kernels(runs: list[Timed]) -> list[Kernel]:
    """Figure 3: each of our kernels on the paper's workloads, by workload, device and machine."""
    measured: list[Kernel] = []
    for workload, (title, _) in HEADLINES.items():
        of_workload = _headline(runs, workload)
        for device in ("cpu", "cuda"):
            of_device = [run for run in of_workload if run.device == device]
            for where in sorted({run.machine for run in of_device}):
                measured += _on([run for run in of_device if run.machine == where], title)
    return measured


def _headline(runs: list[Timed], workload: str) -> list[Timed]:
    """The runs of a workload; of the ConvNet those of the most images."""
    wanted = HEADLINES[workload][1]
    fitting = [
        run
        for run in runs
        if (run.workload, run.work.network) == (workload, wanted.network)
        and run.work.size[: len(wanted.size)] == wanted.size
    ]
    largest = max((run.work.size for run in fitting), default=())
    return [run for run in fitting if run.work.size == largest]


def _on(runs: list[Timed], title: str) -> Iterator[Kernel]:
    """The kernels of a workload on a machine."""
    title = f"{title}, {runs[0].work.size[1]:,} images" if runs[0].workload == "convnet" else title
    ours = [
        (run, implementation)
        for run, implementation in standing_times(runs)
        if implementation.role is Role.ours and implementation != PACK_BITS  # which is no product
    ]
    for run, implementation in sorted(ours, key=lambda each: each[1].name):
        yield Kernel(
            title,
            run,
            implementation,
            latest_ratio(runs, implementation, lambda each: each.fastest(_is_baseline)),
            latest_ratio(runs, implementation, fastest_float32),
            latest_ratio(runs, implementation, Timed.precision),
        )


def _is_baseline(implementation: Implementation) -> bool:
    return implementation.role is Role.baseline


# ---- the table -------------------------------------------------------------------------------


def table(kernels: list[Kernel]) -> Table:
    """A row for each kernel, and one for each workload and device that was not run."""
    rows = []
    for workload in HEADLINES:
        for device in ("cpu", "cuda"):
            of_device = [k for k in kernels if (k.run.workload, k.run.device) == (workload, device)]
            rows += [_row(kernel) for kernel in of_device] or [_not_run(workload, device)]
    gemm, mlp = (
        ", ".join(FIGURE3[workload, kernel].text for kernel in ("baseline", "blas", "xnor"))
        for workload in ("gemm", "mlp")
    )
    return Table(
        name="figure3",
        title="Times of our kernels (the paper's Figure 3)",
        columns=COLUMNS,
        rows=tuple(rows),
        notes=(
            f"The paper's ratios are a {FIGURE3_GPU}'s, whose bars read {gemm} s (baseline, "
            f"cuBLAS, XNOR) for the product and {mlp} s for the network. They are context and no "
            "target: another machine multiplies floats and counts bits at other rates.",
            "The baseline is the unoptimized float32 product, float32 the fastest library that "
            "the run timed in float32, the best precision the fastest of PyTorch and NumPy in any. "
            "The paper's product packs both operands on the clock, ours packs A where its name "
            "says float32 in: weights are packed once. Each ratio is of one run; where the latest "
            "has no such competitor, of the latest that has.",
        ),
    )


COLUMNS = (
    Column("workload", WORKLOAD),
    Column("kernel", "variant"),
    Column("machine", MACHINE),
    Column("median", "median_ms", verdict="verdict", notes="notes"),
    Column("over baseline", paper="paper_over_baseline", verdict="over_baseline_verdict"),
    Column(
        "over float32",
        "over_float32 float32",
        paper="paper_over_float32",
        verdict="over_float32_verdict",
    ),
    Column("over the best precision", "over_best best_precision", verdict="over_best_verdict"),
    Column("of the roofline", "of_limit_pct"),
    Column("spread", "spread_pct"),
    Column("date"),
)


def _row(kernel: Kernel) -> tuple[Cell, ...]:
    run, implementation = kernel.run, kernel.implementation
    record = run.records[implementation]

    def ratio(measure: str, speedup: Ratio | None) -> Cell:
        id = time_id("figure3", run, implementation, measure)
        printed = FIGURE3_RATIOS.get((run.workload, measure)) if kernel.as_the_papers else None
        said = Parts(f"{printed.text}x", (printed.value,)) if printed else ""
        if speedup is None:
            return Cell("", id, said, "" if run.workload == "train_step" else NOT_RUN)
        over = speedup.over_name if measure != "baseline" else Number(speedup.value, times_as)
        return Cell(over, id, said, records=speedup.records)

    return (
        Cell(run.work.named(kernel.title)),
        Cell(Parts(implementation.name, (implementation.variant,))),
        Cell(run.where),
        Cell(Number(record.value, milliseconds), time_id("figure3", run, implementation),
             records=(record.name,), notes=tuple(record_notes(record))),
        ratio("baseline", kernel.over_baseline),
        ratio("blas", kernel.over_float32),
        ratio("best", kernel.over_best),
        Cell(roofline_share(record.details)),
        Cell(spread(record.details)),
        Cell(record.created[:10]),
    )  # fmt: skip


def _not_run(workload: str, device: str) -> tuple[Cell, ...]:
    title, work = HEADLINES[workload]
    where = "GPU" if device == "cuda" else "processor"
    cell = Cell("", f"figure3.{workload}.{device}", verdict=NOT_RUN)
    return (Cell(work.named(title)), Cell(""), Cell(where), cell, *[Cell("")] * 6)


# ---- the drawing -----------------------------------------------------------------------------


def figures(kernels: list[Kernel]) -> list[Figure]:
    """Bars of the paper's two workloads; [] where neither was run."""
    panels = []
    for workload, title in (
        ("gemm", "product of two 8192 x 8192 matrices of ±1"),
        ("mlp", "MNIST network, 10,000 images"),
    ):
        series = _bars([k for k in kernels if k.run.workload == workload and k.as_the_papers])
        if series:
            panels.append(
                Panel(title, "time, s (log scale)", "", (_paper_bars(workload), *series),
                      log_x=True, names=BARS, bars=True, name=workload, x_name="kernel",
                      y_name="time_s")
            )  # fmt: skip
    if not panels:
        return []
    caption = (
        "Shorter is better. XNOR is the fastest kernel whose time holds the packing of A (product) "
        "or takes pixels to labels (network); a baseline timed on some rows or images is scaled to "
        "all. float32 is cuBLAS and Theano in the paper, the fastest library of the run here. The "
        "paper's bars are read off its plot."
    )
    title = f"Figure 3: times beside the paper's {FIGURE3_GPU}"
    return [Figure("figure3", title, caption, tuple(panels))]


def _paper_bars(workload: str) -> Series:
    y = tuple(paper.FIGURE3[workload, kernel].value for kernel in ("baseline", "blas", "xnor"))
    group = f"paper, {FIGURE3_GPU}"
    return Series(group, (0.0, 1.0, 2.0), y, group=group, of_paper=True)


def _bars(kernels: list[Kernel]) -> list[Series]:
    """A colour for each machine; a bar that was not run is left out."""
    series = []
    for where in sorted({kernel.run.machine for kernel in kernels}):
        fastest = min((k for k in kernels if k.run.machine == where), key=lambda k: k.time_s)
        bars = {2.0: fastest.time_s}
        records = {fastest.run.records[fastest.implementation].name}
        for place, ratio in ((0.0, fastest.over_baseline), (1.0, fastest.over_float32)):
            if ratio is not None:
                ours = ratio.run.records[fastest.implementation]
                bars[place] = ours.value / 1e3 * ratio.value
                records |= set(ratio.records)
        x, y = zip(*sorted(bars.items()), strict=True)
        series.append(Series(f"ours, {where}", x, y, group=where, records=tuple(sorted(records))))
    return series
