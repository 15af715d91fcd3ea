"""The README's block: Table 1, the fastest machine of each workload, the packed networks."""

from dataclasses import replace
from pathlib import Path

from bnnrun.records import Record
from bnnrun.report import figure3, table1
from bnnrun.report.content import Cell, Table
from bnnrun.report.experiments import Experiment
from bnnrun.report.formats import markdown
from bnnrun.report.machines import MACHINE, where
from bnnrun.report.networks import compared, file_name
from bnnrun.report.pooling import data_notes, record_notes
from bnnrun.report.standing import newest
from bnnrun.report.timing import timed_runs
from bnnrun.table import Column, Number

BEGIN, END = "<!-- results -->", "<!-- /results -->"
SHOWN = (*range(7), 9)  # columns of Figure 3's table: roofline and spread are in results/


def block(records: list[Record], experiments: list[Experiment]) -> str:
    """What stands between the README's markers, with them; all else is in results/."""
    standing = newest(records)
    cells = table1.Cells(standing, experiments)
    tables = (
        table1.table1(cells),
        _times(figure3.kernels(timed_runs(records))),
        _packed(cells, standing),
    )
    parts = [markdown(table, heading="###") for table in tables if table.rows]
    return f"{BEGIN}\n" + "\n".join(parts) + END


def readme_of(folder: Path, text: str) -> tuple[Path, str] | None:
    """The README beside a results folder as it must read, `text` its block; None where it has no
    markers.
    """
    path = folder.resolve().parent / "README.md"
    if folder.name != "results" or not path.is_file():
        return None
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    return (path, before + text + after) if begin and end else None


def _times(kernels: list[figure3.Kernel]) -> Table:
    """A row for each workload: on the machine that is fastest, its kernel timed as the paper's."""
    fastest = []
    for workload in figure3.HEADLINES:
        of_workload = [kernel for kernel in kernels if kernel.run.workload == workload]
        comparable = [kernel for kernel in of_workload if kernel.as_the_papers] or of_workload
        fastest += sorted(comparable, key=lambda kernel: kernel.time_s)[:1]
    table = figure3.table(fastest)
    rows = [row for row in table.rows if any(cell.records for cell in row)]
    return replace(
        table,
        title="Times: each workload on its fastest machine (the paper's Figure 3)",
        columns=tuple(table.columns[i] for i in SHOWN),
        rows=tuple(tuple(row[i] for i in SHOWN) for row in rows),
        notes=table.notes[:1],
    )


def _packed(cells: table1.Cells, standing: list[Record]) -> Table:
    """The networks of Table 1 above as packed files, each evaluation of one in a row."""
    evaluated = [record for record in standing if record.quantity == "packed_test_error"]
    rows = []
    for cell in cells:
        lead = cells.lead(cell)
        of_cell = {_network(record) for record in lead.records} if lead else set()
        rows += [_packed_row(cell, r) for r in evaluated if _trained(r) in of_cell]
    return Table(
        name="packed",
        title="Packed networks of Table 1",
        columns=(
            Column("network", "method dataset"),
            Column("test error %", "error_pct", notes="notes"),
            Column("bytes"),
            Column("compared with the trained network", "compared_bits compared_scores"),
            Column("images/s", "images_per_s"),
            Column("machine", MACHINE),
            Column("file"),
        ),
        rows=tuple(rows),
    )


def _packed_row(cell: str, r: Record) -> tuple[Cell, ...]:
    return (
        Cell(table1.labelled(cell)),
        Cell(Number(r.value, "{:.2f}"), notes=(*data_notes(r), *record_notes(r))),
        Cell(Number(r.details["packed_bytes"])),
        Cell(compared(r)),
        Cell(Number(r.details["images_per_s"], "{:,.0f}")),
        Cell(where(r)),
        Cell(file_name(r)),
    )


def _network(trained: Record) -> tuple[str, ...]:
    """Of a training run, what its packed file says of it: data, seed, epoch, test error."""
    identity = trained.data.get("name"), trained.seed, trained.details.get("epoch")
    return *map(str, identity), f"{trained.value:.4f}"


def _trained(packed: Record) -> tuple[str, ...]:
    identity = packed.details["trained"]
    names = ("dataset", "seed", "epoch", "test_error_pct")
    return tuple(str(identity.get(name)) for name in names)
