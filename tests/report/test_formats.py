"""Tables as LaTeX, Markdown and CSV."""

import csv
import io

import pytest

from bnnrun.report import formats
from bnnrun.report.content import Cell, Table
from bnnrun.table import Column, Listed, Measured, Number, Parts

ODD = Table(
    name="odd",
    title="50 % & more",
    columns=(
        Column("name_1"),
        Column(
            "value",
            "value_pct value_deviation_pct",
            paper="paper",
            verdict="verdict",
            notes="notes",
        ),
    ),
    rows=(
        (
            Cell(r"a\b {c} ~ ^ # $ | *"),
            Cell(
                Parts("1.2 ± 0.1", (1.2, 0.1)),
                paper=Parts("2×", (2,)),
                verdict="worse (2 of 3)",
                notes=("x", "y"),
            ),
        ),
        (Cell('<b> "q"'), Cell("")),
    ),
    notes=("a < b_c",),
)


def test_latex_escapes_what_means_something_to_it():
    text = formats.latex(ODD)
    assert r"\caption{50 \% \& more}" in text
    assert (
        r"a\textbackslash{}b \{c\} \textasciitilde{} \textasciicircum{} \# \$ \textbar{} * "
        r"& 1.2 $\pm$ 0.1 & 2$\times$ & worse (2 of 3) \\"
    ) in text
    assert r"\textless{}b\textgreater{} ''q'' &  &  &  \\" in text
    assert [rule for rule in ("toprule", "midrule", "bottomrule") if rule not in text] == []
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_markdown_keeps_its_columns_and_numbers_notes():
    lines = formats.markdown(ODD).splitlines()
    assert lines[0] == "## 50 % & more"
    assert lines[2] == "| name\\_1 | value |"
    assert lines[4] == (
        r"| a\\b {c} \~ ^ # $ \| \* "
        "| 1.2 ± 0.1<sup>1,2</sup><br>paper 2×<br>*worse (2 of 3)* |"
    )
    assert lines[5] == '| &lt;b&gt; "q" |  |'
    assert lines[-2:] == ["1. x", "2. y"]


def rows(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(formats.csv_text(table))))


def test_csv_has_each_value_the_papers_number_verdict_and_notes_in_columns_of_their_own():
    first, second = rows(ODD)
    assert first == {
        "name_1": r"a\b {c} ~ ^ # $ | *", "value_pct": "1.2", "value_deviation_pct": "0.1",
        "paper": "2", "verdict": "worse", "notes": "x; y",
    }  # fmt: skip
    assert {name: text for name, text in second.items() if text} == {"name_1": '<b> "q"'}


def test_in_csv_a_cell_of_columns_that_spread_has_a_row_and_an_empty_one_none():
    names = "data error"
    columns = (
        Column("m"),
        Column("A", names, spreads=True),
        Column("B", names, spreads=True),
        Column("C", "name", spreads=True),
    )
    cells = (Cell("x"), Cell(Parts("1 %", ("a", 1))), Cell(""), Cell(Listed(("u", "v"))))
    assert formats.csv_text(Table("t", "t", columns, (cells,))) == (
        "m,data,error,name\nx,a,1,\nx,,,u\nx,,,v\n"
    )


def test_in_csv_values_are_plain():
    values = (Number(12345), Number(1 / 3, "{:.1f} ms"), Measured(2.0), Parts("?", (True,)))
    columns = (Column("Bytes, bits"), Column("t", "t_ms"), Column("e", "e s"), Column("b"))
    table = Table("t", "t", columns, (tuple(map(Cell, values)),))
    assert formats.csv_text(table) == "bytes_bits,t_ms,e,s,b\n12345,0.333333,2,,true\n"
    assert [str(value) for value in values] == ["12,345", "0.3 ms", "2.00", "?"]


def test_a_part_without_a_name_is_refused():
    table = Table("t", "t", (Column("a"),), ((Cell("x", notes=("lost",)),),))
    with pytest.raises(ValueError, match="1 values \\('lost',\\) have 0 names"):
        formats.csv_text(table)
