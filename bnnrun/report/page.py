"""`results/index.html`: tables, figures and the way from each cell to its records, in one file.

It loads nothing: style and drawings stand in it, and the same records give the same bytes.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from bnnrun.records import Record
from bnnrun.report import provenance
from bnnrun.report.content import Cell, Figure, Table
from bnnrun.report.figures import absent, draw

HERE = Path(__file__).parent


@dataclass
class Traced:
    """A cell that leads to records: the place that links lead to, and all it is made of."""

    cell: Cell
    table: Table
    row: str
    column: str
    records: dict[str, Record] = field(default_factory=dict)


def page(
    tables: Sequence[Table],
    figures: Sequence[Figure],
    records: Sequence[Record],
    notes: Sequence[str] = (),
) -> str:
    """The page as HTML.

    Args:
        records: all of them; those that no cell and no figure is made of are counted, not shown
        notes:   what a reader must know of the whole: records that could not be read, and the like
    """
    by_name = {record.name: record for record in records}
    traced = _traced(tables, by_name)
    drawn = [(f, Markup(draw(f)["svg"].decode()), _known(_sources(f), by_name)) for f in figures]
    used = {name for cell in traced.values() for name in cell.records}
    used |= {name for _, _, of_figure in drawn for name in of_figure}
    shown = [record for record in records if record.name in used]
    return _template().render(
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        tables=tables,
        places=_places(tables),
        figures=drawn,
        traced=traced,
        records=shown,
        total=len(records),
        provenance=provenance,
        environments=_numbered(map(provenance.environment, shown)),
        files=_numbered(filter(None, map(provenance.files, shown))),
        notes=[*notes, *absent(list(figures))],
    )


def anchor(name: str) -> str:
    """A name as an identifier and as what follows # in a link: the same characters in both."""
    return quote(name, safe="")


def without_drawings(html: str) -> str:
    """The page's text: drawings differ from one version of the drawing library to the next."""
    return re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL)


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["anchor"] = anchor
    return environment.get_template("page.html")


def _traced(tables: Sequence[Table], by_name: dict[str, Record]) -> dict[str, Traced]:
    """By id, the cells that are made of records."""
    places, traced = _places(tables), dict[str, Traced]()
    for table in tables:
        for i, row in enumerate(table.rows):
            for j, (column, cell) in enumerate(zip(table.columns, row, strict=True)):
                known = _known(cell.records, by_name)
                if not cell.id or not known:
                    continue
                entry = traced.setdefault(cell.id, Traced(cell, table, row[0].text, column.title))
                entry.records |= known
                if places[cell.id] == (table.name, i, j):
                    entry.cell, entry.table = cell, table
                    entry.row, entry.column = row[0].text, column.title
    return traced


def _places(tables: Sequence[Table]) -> dict[str, tuple[str, int, int]]:
    """Of each id the table, row and column that links lead to.

    It is the first cell that has it in the table it is named after, else the first of all.
    """
    places: dict[str, tuple[str, int, int]] = {}
    for table in tables:
        for i, row in enumerate(table.rows):
            for j, cell in enumerate(row):
                known, home = places.get(cell.id), cell.id.partition(".")[0]
                if known is None or table.name == home != known[0]:
                    places[cell.id] = table.name, i, j
    return places


def _known(names: Iterable[str], by_name: dict[str, Record]) -> dict[str, Record]:
    return {name: by_name[name] for name in names if name in by_name}


def _sources(figure: Figure) -> dict[str, None]:
    """Names of the records that a figure is made of, each once."""
    of_series = (name for panel in figure.panels for s in panel.series for name in s.records)
    return dict.fromkeys([*figure.records, *of_series])


def _numbered(values: Iterable[tuple[object, ...]]) -> dict[tuple[object, ...], int]:
    """Different values, numbered from 1: hundreds of records share a machine."""
    return {value: i + 1 for i, value in enumerate(dict.fromkeys(values))}
