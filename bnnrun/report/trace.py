"""`bnnrun report cell=ID`: from a number in a table back to the runs that made it."""

from bnnrun.errors import InputError, nearest
from bnnrun.records import Record
from bnnrun.report import provenance
from bnnrun.report.content import Cell, Table

CURVE = ("train_loss", "valid_error_pct", "test_error_pct")
POINTS = 12  # epochs of a curve that are shown


def trace(id: str, tables: list[Table], records: list[Record]) -> str:
    """What the cell shows, then of each of its records command, commit, seed, environment, curve.

    The beginning of names, such as "figure3" or "table1.mnist", gives the cells that go on so.

    Raises:
        InputError: no table has such a cell
    """
    cells: dict[str, list[tuple[Table, Cell]]] = {}
    for table in tables:
        for cell in (cell for row in table.rows for cell in row if cell.id):
            cells.setdefault(cell.id, []).append((table, cell))
    best = {name: max(places, key=_says_most) for name, places in cells.items()}
    if id not in best:
        begun = {name: cell for name, (_, cell) in best.items() if name.startswith(f"{id}.")}
        if not begun:
            raise InputError(f"cell={id}: no table has such a cell; {_hint(id, list(best))}")
        return _of_cells(begun)
    table, cell = best[id]
    by_name = {record.name: record for record in records}
    parts = [_of_cell(id, table, cell)]
    parts += [_of_record(by_name[name]) for name in cell.records if name in by_name]
    return "\n\n".join(parts) + "\n"


def _says_most(place: tuple[Table, Cell]) -> tuple[bool, int]:
    """Of several tables that tell of the same cell, the one with the paper's number beside it."""
    return bool(place[1].paper), len(place[1].records)


def _hint(id: str, known: list[str]) -> str:
    """The nearest cell; where none is near, how they begin: there are hundreds."""
    hint = nearest(id, known)
    if hint.startswith("did"):
        return hint
    return f"they begin with {', '.join(sorted({name.partition('.')[0] for name in known}))}"


def _of_cells(cells: dict[str, Cell]) -> str:
    """A line for each: its name, to be given in full, and what it shows."""
    width = max(map(len, cells))
    return "".join(f"{name:<{width}}  {_in_short(cell)}\n" for name, cell in cells.items())


def _in_short(cell: Cell) -> str:
    paper = f"(paper {cell.paper})" if cell.paper else ""
    return ", ".join(filter(None, (f"{cell.text} {paper}".strip(), cell.verdict)))


def _of_cell(id: str, table: Table, cell: Cell) -> str:
    facts = (
        ("in", table.title),
        ("ours", cell.text or "nothing measured"),
        ("paper", str(cell.paper)),
        ("verdict", cell.verdict),
        *(("note", note) for note in cell.notes),
        ("records", str(len(cell.records))),
    )
    return "\n".join([id, *_lines(facts)])


def _of_record(record: Record) -> str:
    files = (("file", f"{name}, {size} bytes, md5 {md5}, {said}")
             for name, size, md5, said in provenance.files(record))  # fmt: skip
    facts = (*provenance.facts(record), *files, *provenance.environment(record))
    return "\n".join([f"runs/{record.name}", *_lines(facts), *_curve(record)])


def _lines(facts: tuple[tuple[str, str], ...]) -> list[str]:
    return [f"  {what + ':':<13} {text}" for what, text in facts if text]


def _curve(record: Record) -> list[str]:
    """Some epochs of the curve, the first and the last among them."""
    curve = record.details.get("curve")
    curve = curve if isinstance(curve, dict) else {}
    columns = {key: curve[key] for key in CURVE if curve.get(key)}
    count = min(map(len, columns.values()), default=0)
    if not count:
        return []
    at = sorted({round(i * (count - 1) / (POINTS - 1)) for i in range(POINTS)})
    lines = [f"  {'epoch':>6}  {'  '.join(f'{key:>15}' for key in columns)}"]
    for i in at:
        values = "  ".join(f"{float(column[i]):>15.4f}" for column in columns.values())
        lines.append(f"  {i + 1:>6}  {values}")
    return lines
