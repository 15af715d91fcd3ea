"""Tables: values and their columns; on the terminal and as Markdown for readers, as CSV for
programs.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnnrun.config import TableFormat

Plain = bool | int | float | str | None  # what one place of a CSV file holds; None stays empty
Form = str | Callable[[float], str]


# ---- values: `str(value)` is for readers, `parts_of(value)` for programs ----------------------


@dataclass(frozen=True)
class Number:
    """A number; `form` writes it for readers: a function, or a format such as "{:,} ms"."""

    value: float
    form: Form = "{:,}"

    def __str__(self) -> str:
        form = self.form.format if isinstance(self.form, str) else self.form
        return form(self.value)

    @property
    def parts(self) -> tuple[Plain, ...]:
        return (self.value,)


@dataclass(frozen=True)
class Measured:
    """A mean over runs and the deviation between them, None of a single run."""

    mean: float
    deviation: float | None = None

    def __str__(self) -> str:
        mean = f"{self.mean:.2f}"
        return mean if self.deviation is None else f"{mean} ± {self.deviation:.2f}"

    @property
    def parts(self) -> tuple[Plain, ...]:
        return (self.mean, self.deviation)


@dataclass(frozen=True)
class Parts:
    """What readers see as one text and programs as several values, or as another one."""

    text: str
    parts: tuple[Plain, ...]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Listed:
    """Names that readers see side by side, and programs in rows of their own."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.names)

    @property
    def parts(self) -> tuple[Plain, ...]:
        return self.names


Value = str | Number | Measured | Parts | Listed


def number(value: object, form: Form = "{:,}", *, scale: int = 1) -> Value:
    """`scale * value`; "" of what is no finite number."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return ""
    return Number(scale * value, form)


def parts_of(value: Value) -> tuple[Plain, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    return value.parts


# ---- columns ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A heading for readers, and the names in a CSV file of the values that stand below it.

    Names are identifiers that hold the unit (error_pct), with spaces between them.

    Attributes:
        names:   one for each part of a value; "" takes the title's own words
        paper:   of the paper's number in a report's cell; "" where there is none
        verdict: of the cell's verdict
        notes:   of the cell's notes
        spreads: each value has a row of its own in a CSV file; columns that spread share names
    """

    title: str
    names: str = ""
    paper: str = ""
    verdict: str = ""
    notes: str = ""
    spreads: bool = False

    @property
    def value_names(self) -> str:
        return self.names or identifier(self.title)


def identifier(title: str) -> str:
    """'its score' as its_score."""
    return re.sub(r"\W+", "_", title.lower()).strip("_")


def named(names: str, value: Value) -> dict[str, Plain]:
    """The parts of a value by their names, None for those that it lacks."""
    keys, parts = names.split(), parts_of(value)
    if len(parts) > len(keys):
        raise ValueError(f"{len(parts)} values {parts} have {len(keys)} names: {names!r}")
    return dict(zip_longest(keys, parts))


# ---- formats ---------------------------------------------------------------------------------


def print_table(
    columns: Sequence[Column | str],
    rows: Sequence[Sequence[Value]],
    *,
    title: str = "",
    format: TableFormat = TableFormat.table,
) -> None:
    """Print rows of values; columns of numbers stand to the right.

    A column that is named by its title alone takes its CSV name from it.
    """
    headed = [Column(column) if isinstance(column, str) else column for column in columns]
    if format is TableFormat.csv:
        names = " ".join(column.value_names for column in headed).split()
        print(csv_text(names, _lines(headed, rows)), end="")
        return
    titles = [column.title for column in headed]
    texts = [list(map(str, row)) for row in rows]
    if format is TableFormat.markdown:
        print(markdown_text(titles, texts), end="")
        return
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(title) if title else None,
        title_justify="left",
        padding=(0, 1, 0, 0),
    )
    for i, column in enumerate(titles):
        right = _is_numeric(texts, i)
        table.add_column(
            column, justify="right" if right else "left", no_wrap=right, overflow="fold"
        )
    for row in texts:
        table.add_row(*map(Text, row))  # as it stands: a name may hold what rich takes for markup
    console = Console(highlight=False)
    # A file or a pipe has no width: nothing is cut there.
    if not console.is_terminal:
        console.width = 200
    console.print(table)


def _is_numeric(rows: list[list[str]], i: int) -> bool:
    """Whether every filled cell of column `i` begins with a digit."""
    return all(row[i][:1].isdigit() for row in rows if row[i])


def markdown_text(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; columns of numbers stand to the right."""
    rule = ["---:" if _is_numeric(rows, i) else "---" for i in range(len(columns))]
    lines = [columns, rule, *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _lines(columns: list[Column], rows: Sequence[Sequence[Value]]) -> list[dict[str, Plain]]:
    """Of each row the parts by name."""
    lines = []
    for row in rows:
        line: dict[str, Plain] = {}
        for column, value in zip(columns, row, strict=True):
            line |= named(column.value_names, value)
        lines.append(line)
    return lines


def csv_text(names: Sequence[str], lines: Iterable[dict[str, Plain]]) -> str:
    """CSV for programs: a value a place, no unit, no thousands separator, six digits of a float."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(_written(line.get(name) for name in names) for line in lines)
    return text.getvalue()


def _written(values: Iterable[Plain]) -> list[str]:
    return [str(v).lower() if isinstance(v, bool) else f"{v:.6g}" if isinstance(v, float)
            else "" if v is None else str(v) for v in values]  # fmt: skip
