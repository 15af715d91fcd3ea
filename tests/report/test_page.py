"""The page: one file that loads nothing, every cell led to its records, hostile text harmless."""

import dataclasses
import os
import pickle
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_records import read_data, timed, trained
from test_figures import contrast, every_kind, figure

from bnnrun.report import provenance
from bnnrun.report.content import Cell, Table
from bnnrun.report.figures import absent, figures
from bnnrun.report.page import HERE, anchor, page, without_drawings
from bnnrun.table import Column

VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = "<script>alert(1)</script>\"'&\x27 <img src=x onerror=y>"


class Parsed(HTMLParser):
    """Identifiers, links, attributes and text of a page; AssertionError where tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if tag == "a" else []
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open and self._open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not self._open or self._open[-1] != "style":
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def table(*cells: Cell, name="table1", notes=()) -> Table:
    columns = (Column("method"), *(Column(f"column {i}") for i in range(len(cells))))
    return Table(name, f"Title of {name}", columns, ((Cell("a method"), *cells),), tuple(notes))


def cell(record, id="table1.mnist.theano", **more) -> Cell:
    return Cell(f"{record.value:.2f}", id, records=(record.name,), **more)


@pytest.fixture(scope="module")
def arguments():
    """What a page is made of: every figure, and cells of several kinds."""
    records = every_kind()
    cells = (
        cell(records[1], paper="0.96", verdict="reduced budget (20 of 1000 epochs)"),
        cell(records[0], "table1.cifar10.theano", verdict="worse", notes=("the tree was dirty",)),
        Cell("", "table1.svhn.torch7", "2.53", "not run"),
        Cell(""),
    )
    again = table(cell(records[1]), cell(records[-1], "times.a b/c"), name="times")
    return [again, table(*cells)], figures(records), records, ["a note"]


@pytest.fixture(scope="module")
def index_html(arguments):
    return page(*arguments)


# ---- one file, no network --------------------------------------------------------------------


def test_the_page_loads_nothing(index_html):
    parsed = Parsed(index_html)
    assert not [tag for tag, _ in parsed.tags if tag in ("script", "link", "iframe", "object")]
    for tag, attributes in parsed.tags:
        for name, value in attributes.items():
            loads = name in ("src", "srcset", "data", "poster", "xlink:href")
            if loads or (name == "href" and tag != "a"):
                assert value.startswith(("#", "data:")), (tag, name, value)
    assert not re.search(r"@import|url\((?!#)", index_html)
    assert not [link for link in parsed.links if "//" in link]


def test_links_lead_to_identifiers_of_the_page_or_files_beside_it(index_html):
    parsed = Parsed(index_html)
    assert len(parsed.ids) == len(set(parsed.ids))
    inside = {link[1:] for link in parsed.links if link.startswith("#")}
    assert inside <= set(parsed.ids)
    beside = [link for link in parsed.links if not link.startswith("#")]
    assert beside and all(re.fullmatch(r"(runs|figures)/[^/]+", link) for link in beside)


def test_the_same_records_give_the_same_bytes_in_another_process(tmp_path, arguments, index_html):
    (tmp_path / "arguments").write_bytes(pickle.dumps(arguments))
    code = (
        "import pathlib, pickle, sys, bnnrun.report.page as p\n"
        "made = p.page(*pickle.loads(pathlib.Path('arguments').read_bytes()))\n"
        "sys.stdout.buffer.write(made.encode())"
    )
    environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "3", "LC_ALL": "C",
                   "PYTHONPATH": str(Path(__file__).parents[2])}  # fmt: skip
    there = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment,
                           capture_output=True, check=True).stdout  # fmt: skip
    assert there.decode() == index_html == page(*arguments)


def test_without_its_drawings_a_page_keeps_its_text(index_html):
    text = without_drawings(index_html)
    assert "<svg" in index_html and "<svg" not in text and "</svg>" not in text
    assert "Figure 1: training on CIFAR-10" in text and text.endswith("</html>\n")
    other = index_html.replace("M 0", "M 1")
    assert other != index_html
    assert without_drawings(other) == text


# ---- from a cell to its records --------------------------------------------------------------


def test_a_cell_leads_to_its_runs_and_they_to_their_records(arguments, index_html):
    parsed = Parsed(index_html)
    record = arguments[2][1]
    assert {"table1.mnist.theano", "cell-table1.mnist.theano"} <= set(parsed.ids)
    assert "#cell-table1.mnist.theano" in parsed.links
    assert f"#record-{record.name}" in parsed.links
    assert f"runs/{record.name}" in parsed.links
    for shown in (record.command, record.checksum, "c0ffee", "A Processor", "torch 2.6.0",
                  "50,000 train", "as published", "20 epochs"):  # fmt: skip
        assert shown in parsed.text, shown


def test_an_identifier_that_no_address_can_hold_still_leads_somewhere(index_html):
    assert anchor("times.a b/c") == "times.a%20b%2Fc"
    assert "times.a%20b%2Fc" in Parsed(index_html).ids


def test_links_lead_to_the_table_that_a_cell_is_named_after(index_html):
    """The cell stands in the table `times` too, before."""
    at, home = index_html.index('id="table1.mnist.theano"'), index_html.index('id="table-table1"')
    assert index_html.index('id="table-times"') < home < at


def test_verdict_paper_and_notes_are_words(index_html):
    text = Parsed(index_html).text
    for shown in ("paper: 0.96", "reduced budget (20 of 1000 epochs)", "worse",
                  "the tree was dirty", "not run", "a note"):  # fmt: skip
        assert shown in text


def test_a_cell_that_says_its_verdict_says_it_once():
    shown = page([table(Cell("not run", verdict="not run"))], [], [])
    assert Parsed(shown).text.count("not run") == 1 + len(absent([]))


def test_a_record_that_is_not_there_is_no_link():
    shown = Parsed(page([table(Cell("1.00", "table1.a", records=("gone.json",)))], [], []))
    assert "1.00" in shown.text
    assert "table1.a" in shown.ids and "cell-table1.a" not in shown.ids


def test_an_empty_report_is_a_page_that_names_what_is_missing():
    shown = Parsed(page([], [], []))
    for sentence in absent([]):
        assert sentence in shown.text


def test_a_picture_of_filters_is_in_the_page(arguments, index_html):
    assert figure("figure2", arguments[2]).caption in Parsed(index_html).text
    assert "data:image/png;base64," in index_html


# ---- hostile text ----------------------------------------------------------------------------


def test_names_that_hold_markup_are_shown_as_they_are(arguments):
    record = dataclasses.replace(
        trained(epochs=20), experiment=HOSTILE, command=HOSTILE, unit=HOSTILE,
        source={"commit": HOSTILE, "clean": False}, versions={HOSTILE: HOSTILE},
        data=read_data(notes=[HOSTILE], files=[{"name": HOSTILE, "md5": HOSTILE}]),
        cell=f"{HOSTILE}.theano",
    )  # fmt: skip
    hostile = Cell(HOSTILE, f"table1.{HOSTILE}", HOSTILE, HOSTILE, (HOSTILE,), (record.name,))
    tables = [
        Table(
            HOSTILE,
            HOSTILE,
            (Column(HOSTILE), Column("x")),
            ((Cell(HOSTILE), hostile),),
            (HOSTILE,),
        ),
    ]
    shown = page(tables, figures([record]), [record], [HOSTILE])
    parsed = Parsed(shown)
    assert not [tag for tag, _ in parsed.tags if tag in ("script", "img")]
    assert not [
        name for _, attributes in parsed.tags for name in attributes if name.startswith("on")
    ]
    assert parsed.text.count(HOSTILE) > 10
    inside = {link[1:] for link in parsed.links if link.startswith("#")}
    assert inside <= set(parsed.ids)
    assert all(re.fullmatch(r"(runs|figures)/[^/]+", a) for a in parsed.links if a[0] != "#")


# ---- what a reader needs ---------------------------------------------------------------------


def test_tables_and_figures_say_what_they_are_to_those_who_listen(index_html):
    parsed = Parsed(index_html)
    tables = len(parsed.named("table"))
    assert tables == len(parsed.named("caption")) >= 3
    assert all(attributes.get("scope") in ("col", "row") for attributes in parsed.named("th"))
    regions = [g for g in parsed.named("div") if g.get("class") == "scroll"]
    assert len(regions) == tables
    assert all(g["tabindex"] == "0" and g["aria-labelledby"] in parsed.ids for g in regions)
    assert len(parsed.named("main")) == len(parsed.named("h1")) == 1
    assert all(g.get("aria-label") for g in [*parsed.named("nav"), *parsed.named("svg")])
    assert [g.get("lang") for g in parsed.named("html")] == ["en"]
    assert any(g.get("name") == "viewport" for g in parsed.named("meta"))


def test_letters_stand_out_by_4_5_to_1_in_the_light_and_in_the_dark():
    style = (HERE / "page.css").read_text(encoding="utf-8")
    for part in style.split("prefers-color-scheme: dark"):
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", part))
        for name in ("ink", "soft", "link", "good", "bad", "open"):
            for ground in ("ground", "raised"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)


# ---- where a number comes from ---------------------------------------------------------------


def test_the_facts_of_a_record_tell_what_it_knows_and_no_more():
    facts = dict(provenance.facts(trained(epochs=20)))
    assert facts["curve"].startswith("20 epochs; training cost 11 to ")
    assert facts["commit"] == "c0ffee"
    assert "competitor" not in facts
    assert dict(provenance.facts(timed()[0]))["competitor"] == "xnor, int32 out"


@pytest.mark.parametrize(
    ("clean", "said"), [(True, "c0"), (False, "c0, with changes"), (None, "c0, tree not known")]
)
def test_a_tree_that_was_not_clean_is_told_beside_the_commit(clean, said):
    record = trained(source={"commit": "c0ffee", "clean": clean})
    assert provenance.commit(record, 2).startswith(said)


def test_a_curve_in_words_names_the_latest_of_the_lowest_errors():
    record = trained(epochs=3)
    record.details["curve"] = {"train_loss": [1.0, 0.5, 0.25], "valid_error_pct": [9.0, 3.0, 3.0]}
    assert provenance.curve(record) == (
        "3 epochs; training cost 1 to 0.25; validation error 9.00 to 3.00 %, "
        "least 3.00 % at epoch 3"
    )
    del record.details["curve"]
    assert provenance.curve(record) == "3 epochs; not kept by this record"
