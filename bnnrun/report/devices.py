"""What the published networks take of a small device, in C."""

from collections.abc import Iterable
from pathlib import Path

from bnnrun.export.c.memory import cost
from bnnrun.export.c.scores import integer_scores
from bnnrun.export.c.tables import tables
from bnnrun.records import Record
from bnnrun.report.content import Cell, Table
from bnnrun.report.pooling import data_notes, record_notes
from bnnrun.runtime import file
from bnnrun.table import Column, Number

WORD_BITS = 32


def devices(records: list[Record], models: Iterable[Path]) -> Table:
    """A row for each packed file that was evaluated, smallest first."""
    evaluated = {r.details["sha256"]: r for r in records if r.quantity == "packed_test_error"}
    evaluations = [(path, evaluated.get(file.sha256(path))) for path in models]
    rows = sorted(_row(path, record) for path, record in evaluations if record is not None)
    return Table(
        name="devices",
        title="Networks in C",
        columns=(
            Column("file"),
            Column("data", "dataset"),
            Column("test error %", "error_pct", notes="notes"),
            Column("flash, bytes", "flash_bytes"),
            Column("scratch, bytes", "scratch_bytes"),
            Column("XOR and popcount an image", "operations"),
            Column("bits of a score", "score_bits"),
        ),
        rows=tuple(cells for _, _, cells in rows),
        notes=(
            "Of `bnnrun export format=c`, with words of 32 bits: constants, memory during a call, "
            "and words that are compared. Code is one to two thousand bytes more. docs/export.md "
            "has what a Cortex-M3 took.",
        ),
    )


def _row(path: Path, record: Record) -> tuple[int, str, tuple[Cell, ...]]:
    """(bytes of flash, file, cells)."""
    model = file.load(path)
    scores = integer_scores(model.layers[-1])
    total = cost(tables(model), scores, WORD_BITS)
    return total.flash, path.name, (
        Cell(path.name),
        Cell(record.data["name"]),
        Cell(Number(record.value, "{:.2f}"), notes=(*data_notes(record), *record_notes(record)),
             records=(record.name,)),
        Cell(Number(total.flash)),
        Cell(Number(total.scratch)),
        Cell(Number(total.operations)),
        Cell(Number(scores.bits)),
    )  # fmt: skip
