"""`bnnrun report cell=ID`: from a number in a table back to the runs that made it."""

from bnnrun.errors import InputError, nearest
from bnnrun.records import Record
from bnnrun.report import origin
from bnnrun.report.content import Cell, Table

CURVE = ("train_loss", "valid_error_pct", "test_error_pct")
POINTS = 12  # epochs of a curve that are shown


def chain(id: str, tables: list[Table], records: list[Record]) -> str:
    """What the cell shows, then of each of its records command, commit, seed, environment, curve.

    Raises:
        InputError: no table has such a cell
    """
    cells = [(table, cell) for table in tables for row in table.rows for cell in row if cell.id]
    found = [(table, cell) for table, cell in cells if cell.id == id]
    if not found:
        hint = _hint(id, [cell.id for _, cell in cells])
        raise InputError(f"cell={id}: no table has such a cell; {hint}")
    # Several tables tell of the same cell; the one with the paper's number beside it says most.
    table, cell = max(found, key=lambda pair: (bool(pair[1].paper), len(pair[1].records)))
    by_name = {record.name: record for record in records}
    parts = [_of_cell(id, table, cell)]
    parts += [_of_record(by_name[name]) for name in cell.records if name in by_name]
    return "\n\n".join(parts) + "\n"


def _hint(id: str, known: list[str]) -> str:
    """The nearest cell; where none is near, how they begin: there are hundreds."""
    hint = nearest(id, known)
    if hint.startswith("did"):
        return hint
    return f"they begin with {', '.join(sorted({name.partition('.')[0] for name in known}))}"


def _of_cell(id: str, table: Table, cell: Cell) -> str:
    told = (
        ("in", table.title),
        ("ours", cell.text or "nothing measured"),
        ("paper", cell.paper),
        ("verdict", cell.verdict),
        *(("note", note) for note in cell.notes),
        ("records", str(len(cell.records))),
    )
    return "\n".join([id, *_lines(told)])


def _of_record(record: Record) -> str:
    files = (("file", f"{name}, {size} bytes, md5 {md5}, {said}")
             for name, size, md5, said in origin.files(record))  # fmt: skip
    told = (*origin.facts(record), *files, *origin.environment(record))
    return "\n".join([f"runs/{record.name}", *_lines(told), *_curve(record)])


def _lines(told: tuple[tuple[str, str], ...]) -> list[str]:
    return [f"  {what + ':':<13} {text}" for what, text in told if text]


def _curve(record: Record) -> list[str]:
    """Some epochs of the curve, the first and the last among them."""
    kept = record.details.get("curve")
    columns = {key: kept[key] for key in CURVE if kept.get(key)} if isinstance(kept, dict) else {}
    count = min(map(len, columns.values()), default=0)
    if not count:
        return []
    at = sorted({round(i * (count - 1) / (POINTS - 1)) for i in range(POINTS)})
    lines = [f"  {'epoch':>6}  {'  '.join(f'{key:>15}' for key in columns)}"]
    for i in at:
        values = "  ".join(f"{float(column[i]):>15.4f}" for column in columns.values())
        lines.append(f"  {i + 1:>6}  {values}")
    return lines
