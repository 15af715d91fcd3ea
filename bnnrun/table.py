"""Tables on the terminal, as Markdown, as CSV."""

import csv
import io

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnnrun.config import TableFormat


def print_table(
    columns: list[str],
    rows: list[list[str]],
    *,
    title: str = "",
    format: TableFormat = TableFormat.table,
) -> None:
    """Print rows of text; columns of numbers stand to the right."""
    if format is TableFormat.csv:
        print(csv_text(columns, rows), end="")
        return
    if format is TableFormat.markdown:
        print(markdown_text(columns, rows), end="")
        return
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(title) if title else None,
        title_justify="left",
        padding=(0, 1, 0, 0),
    )
    for i, column in enumerate(columns):
        right = _is_numeric(rows, i)
        table.add_column(
            column, justify="right" if right else "left", no_wrap=right, overflow="fold"
        )
    for row in rows:
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


def csv_text(columns: list[str], rows: list[list[str]]) -> str:
    """The same as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()
