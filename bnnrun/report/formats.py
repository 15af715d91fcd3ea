"""Tables as Markdown, CSV and LaTeX (booktabs)."""

from collections.abc import Iterable, Iterator
from itertools import chain

from bnnrun import table as of_values
from bnnrun.report.content import Cell, Table, bare
from bnnrun.table import Column, Listed, Plain, named

# Each character that means something to LaTeX, or that an old one cannot set.
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "×": r"$\times$", "²": r"\textsuperscript{2}", "·": r"$\cdot$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\"": "''",
}  # fmt: skip
WRAPPED = 40  # characters from which on LaTeX breaks the texts of a column into lines
MARKDOWN = {"\\": "\\\\", "|": "\\|", "*": "\\*", "_": "\\_", "<": "&lt;", ">": "&gt;", "~": "\\~"}


def markdown(table: Table, *, heading: str = "##") -> str:
    """Title, table and notes; what a single number needs said stands numbered below."""
    numbered = _Notes()
    lines = [[_plain(column.title, MARKDOWN) for column in table.columns], _rule(table)]
    lines += [[_markdown_cell(cell, numbered) for cell in row] for row in table.rows]
    parts = ["".join("| " + " | ".join(line) + " |\n" for line in lines)]
    parts += [f"{_plain(note, MARKDOWN)}\n" for note in table.notes]
    if numbered:
        parts.append("".join(f"{i}. {_plain(note, MARKDOWN)}\n" for i, note in numbered))
    title = f"{heading} {_plain(table.title, MARKDOWN)}\n\n" if heading else ""
    return title + "\n".join(parts)


def _markdown_cell(cell: Cell, numbered: "_Notes") -> str:
    marks = numbered.marks(cell)
    parts = [_plain(cell.text, MARKDOWN)] if cell.text else []
    if cell.paper:
        parts.append(f"paper {_plain(str(cell.paper), MARKDOWN)}")
    if cell.verdict and cell.verdict != cell.text:
        parts.append(f"*{_plain(cell.verdict, MARKDOWN)}*")
    if marks:
        parts[:1] = [(parts[0] if parts else "") + f"<sup>{marks}</sup>"]
    return "<br>".join(parts)


class _Notes:
    """Notes of single cells, each once, numbered as they come."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def marks(self, cell: Cell) -> str:
        numbers = [self.numbers.setdefault(note, len(self.numbers) + 1) for note in cell.notes]
        return ",".join(map(str, sorted(numbers)))

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return ((i, note) for note, i in self.numbers.items())

    def __bool__(self) -> bool:
        return bool(self.numbers)


def _rule(table: Table) -> list[str]:
    columns = zip(*table.rows, strict=True)
    numeric = [_are_numbers(cell.text or str(cell.paper) for cell in column) for column in columns]
    return ["---:" if right else "---" for right in numeric]


def _are_numbers(texts: Iterable[str]) -> bool:
    """Whether every filled text begins with a digit."""
    filled = [text for text in texts if text]
    return bool(filled) and all(text.lstrip("~+-")[:1].isdigit() for text in filled)


def _plain(text: str, escapes: dict[str, str]) -> str:
    return "".join(escapes.get(character, character) for character in text)


# ---- CSV -------------------------------------------------------------------------------------


def csv_text(table: Table) -> str:
    """A row a row, or a row a cell of the columns that spread; the table's notes are left out."""
    lines = chain.from_iterable(_lines(table.columns, row) for row in table.rows)
    return of_values.csv_text(list(dict.fromkeys(chain(*map(_names, table.columns)))), lines)


def _names(column: Column) -> list[str]:
    return f"{column.value_names} {column.paper} {column.verdict} {column.notes}".split()


def _lines(columns: tuple[Column, ...], row: tuple[Cell, ...]) -> list[dict[str, Plain]]:
    common: dict[str, Plain] = {}
    spread = []
    for column, cell in zip(columns, row, strict=True):
        if not column.spreads:
            common |= _parts(column, cell)
        elif isinstance(cell.value, Listed):
            spread += [named(column.value_names, name) for name in cell.value.names]
        elif cell.value:
            spread.append(_parts(column, cell))
    return [common | line for line in spread] or [common]


def _parts(column: Column, cell: Cell) -> dict[str, Plain]:
    """The value of a cell, and the paper's number, verdict and notes beside it."""
    verdict = bare(cell.verdict) if cell.verdict != cell.text else ""
    return {
        **named(column.value_names, cell.value),
        **named(column.paper, cell.paper),
        **named(column.verdict, verdict),
        **named(column.notes, "; ".join(cell.notes)),
    }


# ---- LaTeX -----------------------------------------------------------------------------------


def _flat(table: Table) -> list[list[str]]:
    """Columns and rows of text: a cell's paper's number and verdict in columns beside it.

    A column that no row fills is left out, but for the cells' own text.
    """
    columns: list[str] = []
    lines: list[list[str]] = [[] for _ in table.rows]
    for i, column in enumerate(table.columns):
        cells, title = [row[i] for row in table.rows], column.title
        parts = {
            title: [cell.text for cell in cells],
            f"{title}, paper": [str(cell.paper) for cell in cells],
            f"{title}, verdict": [c.verdict if c.verdict != c.text else "" for c in cells],
        }
        for name, texts in parts.items():
            if name == title or any(texts):
                columns.append(name)
                for line, text in zip(lines, texts, strict=True):
                    line.append(text)
    return [columns, *lines]


def latex(table: Table) -> str:
    r"""A `table` of booktabs, ready for \input; it needs \usepackage{booktabs}."""
    columns, *rows = _flat(table)
    kinds = "".join(_latex_column([row[i] for row in rows]) for i in range(len(columns)))
    body = "".join("  " + " & ".join(_plain(t, LATEX) for t in row) + " \\\\\n" for row in rows)
    notes = "".join(f"  \\par\\footnotesize {_plain(note, LATEX)}\n" for note in table.notes)
    return (
        f"% {table.title}: \\usepackage{{booktabs}}\n"
        "\\begin{table}\n"
        "  \\centering\\small\n"
        f"  \\caption{{{_plain(table.title, LATEX)}}}\n"
        f"  \\label{{tab:{table.name}}}\n"
        f"  \\begin{{tabular}}{{{kinds}}}\n"
        "  \\toprule\n"
        "  " + " & ".join(_plain(column, LATEX) for column in columns) + " \\\\\n"
        "  \\midrule\n"
        f"{body}"
        "  \\bottomrule\n"
        "  \\end{tabular}\n"
        f"{notes}"
        "\\end{table}\n"
    )


def _latex_column(texts: list[str]) -> str:
    """Numbers to the right; long texts in lines of their own."""
    if _are_numbers(texts):
        return "r"
    return "p{5cm}" if max(map(len, texts), default=0) > WRAPPED else "l"
