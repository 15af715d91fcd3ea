"""Table 1: test errors beside the paper's, in its form, in detail, and by other protocols."""

from collections.abc import Iterator

from bnnrun.paper import DATASETS, EPOCHS, TABLE1, TABLE1_ROWS, Number
from bnnrun.records import Record
from bnnrun.report.content import Cell, Table, verdict_cell
from bnnrun.report.experiments import Experiment, differences
from bnnrun.report.pooling import (
    NOT_RUN,
    Pool,
    by_budget,
    how_sure,
    interval_value,
    notes,
    pool,
    printed_value,
    verdict,
)
from bnnrun.table import Column, Parts
from bnnrun.table import number as value


class Cells:
    """The pools of each cell of Table 1 that an experiment reproduces, the leading one first.

    Attributes:
        pools:   by cell, "table1.mnist.theano"
        altered: pools of runs that named a cell and changed its settings: no cell's, ablations
        others:  pools of test errors that named no cell
    """

    def __init__(self, records: list[Record], experiments: list[Experiment]) -> None:
        by_cell = {e.cell: e for e in experiments if e.cell}
        self.pools: dict[str, list[Pool]] = {cell: [] for cell in by_cell}
        self.altered: list[Pool] = []
        self.others: list[Pool] = []
        for each in pool(r for r in records if r.quantity == "test_error"):
            cell = each.first.cell
            if cell not in by_cell:
                self.others.append(each)
            elif differences(each.first.config, by_cell[cell]):
                self.altered.append(each)
            else:
                self.pools[cell].append(each)
        self.pools = {cell: by_budget(pools) for cell, pools in self.pools.items()}

    def lead(self, cell: str) -> Pool | None:
        pools = self.pools.get(cell, [])
        return pools[0] if pools else None

    def verdict(self, cell: str) -> str:
        """ "" where nobody runs the cell."""
        return verdict(self.lead(cell), number(cell)) if cell in self.pools else ""

    def __iter__(self) -> Iterator[str]:
        """Names of the cells, in the paper's order."""
        names = [cell_id(row.key, data) for row in TABLE1_ROWS for data in DATASETS]
        return iter([name for name in names if name in self.pools])


def cell_id(row: str, column: str) -> str:
    return f"table1.{column}.{row}"


def number(cell: str) -> Number:
    """What the paper prints in a cell."""
    _, column, row = cell.split(".")
    return TABLE1[row, column]


def label(cell: str) -> str:
    """'BNN (Theano), MNIST'."""
    return str(labelled(cell))


def labelled(cell: str) -> Parts:
    """The same; for programs method and data set."""
    _, column, key = cell.split(".")
    method = next(row.label for row in TABLE1_ROWS if row.key == key)
    return Parts(f"{method}, {DATASETS[column]}", (method, column))


def table1(cells: Cells) -> Table:
    """All rows of the paper, ours beside those that we run."""
    rows = []
    for row in TABLE1_ROWS:
        line = [Cell(row.label), Cell(row.group)]
        for column in DATASETS:
            cell, printed = cell_id(row.key, column), TABLE1.get((row.key, column))
            line.append(_beside(cells, cell, printed))
        rows.append(tuple(line))
    return Table(
        name="table1",
        title="Table 1: test error, %",
        columns=(
            Column("method"),
            Column("binarization"),
            *(
                Column(
                    name,
                    "dataset error_pct deviation_pct n epochs of_epochs",
                    paper="paper_pct paper_deviation_pct",
                    verdict="verdict",
                    notes="notes",
                    spreads=True,
                )
                for name in DATASETS.values()
            ),
        ),
        rows=tuple(rows),
        notes=(
            "Mean ± deviation over seeds at the epoch of the lowest validation error (the latest "
            "of equals), n runs. Below it the paper's number and the verdict: within noise is "
            "inside 2 sqrt(s²/n + 2p(1-p)/N), p the error, s the deviation between seeds, N the "
            "test images.",
            "Rows without a verdict are other people's methods, which are not run here. Maxout "
            "and Network in Network stand only in the arXiv version.",
        ),
    )


def _beside(cells: Cells, cell: str, printed: Number | None) -> Cell:
    """Our number, or nothing; beside it the paper's."""
    if printed is None:
        return Cell("")
    lead, paper, nothing = cells.lead(cell), printed_value(printed), Parts("", (printed.column,))
    if cell not in cells.pools:
        return Cell(nothing, paper=paper)
    if lead is None:
        changed = any(each.first.cell == cell for each in cells.altered)
        other = ("runs of this cell with settings changed stand under ablations",)
        return Cell(nothing, cell, paper, NOT_RUN, other if changed else ())
    full_schedule = EPOCHS[printed.column]
    ours = Parts(f"{lead.measured} (n = {lead.n})",
                 (printed.column, *lead.measured_n.parts, lead.epochs, full_schedule))  # fmt: skip
    return Cell(ours, cell, paper, cells.verdict(cell), notes(lead), lead.names)


def detail(cells: Cells) -> Table:
    """A row for each pool of a cell, the leading one first, those of smaller budgets beneath."""
    rows = []
    for cell in cells:
        pools: list[Pool | None] = [*cells.pools[cell]] or [None]
        for i, each in enumerate(pools):
            cell_id = cell if i == 0 else f"{cell}.{i + 1}"
            rows.append(_detail_row(cell_id, cell, each, beneath=i > 0))
    return Table(
        name="table1_detail",
        title="Table 1 in detail",
        columns=(
            Column("cell"),
            Column("method, data", "method dataset leads"),
            Column("test error %", "error_pct deviation_pct", notes="notes"),
            Column("n"),
            Column("95 % interval", "low_pct high_pct", notes="interval"),
            Column("epochs"),
            Column("of the paper's", "of_epochs_pct"),
            Column("paper %", "paper_pct paper_deviation_pct"),
            Column("verdict"),
        ),
        rows=tuple(rows),
        notes=(
            "The largest budget leads a cell; others are listed beneath it. The interval is "
            "Student's t between seeds, and Wilson's of a single run on its test images.",
        ),
    )


def _detail_row(cell_id: str, cell: str, each: Pool | None, *, beneath: bool) -> tuple[Cell, ...]:
    printed = number(cell)
    name = Cell(cell_id, cell_id)
    named = labelled(cell)
    method = Cell(Parts(f"{'beneath: ' * beneath}{named}", (*named.parts, not beneath)))
    if each is None:
        blank = [Cell("")] * 5
        return (name, method, *blank, Cell(printed_value(printed)), verdict_cell(NOT_RUN, cell_id))
    full_schedule = EPOCHS[printed.column]
    return (
        name,
        method,
        Cell(each.measured, cell_id, notes=notes(each), records=each.names),
        Cell(value(each.n)),
        Cell(interval_value(each), notes=(how_sure(each),)),
        Cell(value(each.epochs) or Parts("not recorded", ())),
        Cell("" if each.epochs is None else value(100 * each.epochs / full_schedule, "{:.3g} %")),
        Cell(printed_value(printed)),
        verdict_cell(verdict(each, printed), cell_id, each.names),
    )


def protocols(cells: Cells) -> Table:
    """The same runs by the epoch that is read: picked by validation, the last, the best on test."""
    rows = []
    for cell in cells:
        for i, each in enumerate(cells.pools[cell]):
            cell_id = cell if i == 0 else f"{cell}.{i + 1}"
            rows.append(
                (
                    Cell(cell_id, cell_id, records=each.names),
                    Cell(value(each.epochs)),
                    Cell(value(each.n)),
                    Cell(each.measured),
                    Cell(each.mean_of("last_epoch_test_error_pct")),
                    Cell(each.mean_of("best_on_test_error_pct")),
                    Cell(each.mean_of("valid_error_pct")),
                )
            )
    return Table(
        name="protocols",
        title="Test error by the epoch it is read at, %",
        columns=(
            Column("cell"),
            Column("epochs"),
            Column("n"),
            Column("picked by validation", "error_pct deviation_pct"),
            Column("last epoch", "last_epoch_error_pct last_epoch_deviation_pct"),
            Column("best on the test set", "best_on_test_error_pct best_on_test_deviation_pct"),
            Column("validation error", "valid_error_pct valid_deviation_pct"),
        ),
        rows=tuple(rows),
        notes=(
            "Only the first is a test error as the paper's. The best on the test set has chosen "
            "its epoch by the very images it is measured on: it is too low, and shown for "
            "comparison with work that reports it.",
        ),
    )
