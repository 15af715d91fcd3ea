"""Tables as LaTeX, Markdown and CSV."""

import csv
import io

from bnnrun.report import formats
from bnnrun.report.content import Cell, Table

ODD = Table(
    name="odd",
    title="50 % & more",
    columns=("name_1", "value"),
    rows=(
        (
            Cell(r"a\b {c} ~ ^ # $ | *"),
            Cell("1.2 ± 0.1", paper="2×", verdict="worse", notes=("x",)),
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
        r"& 1.2 $\pm$ 0.1 & 2$\times$ & worse \\"
    ) in text
    assert r"\textless{}b\textgreater{} ''q'' &  &  &  \\" in text
    assert [rule for rule in ("toprule", "midrule", "bottomrule") if rule not in text] == []
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_markdown_keeps_its_columns_and_numbers_notes():
    lines = formats.markdown(ODD).splitlines()
    assert lines[0] == "## 50 % & more"
    assert lines[2] == "| name\\_1 | value |"
    assert (
        lines[4]
        == "| a\\\\b {c} \\~ ^ # $ \\| \\* | 1.2 ± 0.1<sup>1</sup><br>paper 2×<br>*worse* |"
    )
    assert lines[5] == '| &lt;b&gt; "q" |  |'
    assert lines[-1] == "1. x"


def test_csv_has_the_papers_number_and_the_verdict_in_columns_of_their_own():
    rows = list(csv.DictReader(io.StringIO(formats.csv_text(ODD))))
    assert rows[0] == {
        "name_1": r"a\b {c} ~ ^ # $ | *", "value": "1.2 ± 0.1", "value, paper": "2×",
        "value, verdict": "worse", "value, notes": "x",
    }  # fmt: skip
