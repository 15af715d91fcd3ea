"""Newest wins: what stands in the tables, and where the others are."""

from pathlib import Path

import pytest
from made_records import packed, timed, trained

from bnnrun import records
from bnnrun.report.collect import collect
from bnnrun.report.figures import figures
from bnnrun.report.report import content
from bnnrun.report.standing import newest
from bnnrun.report.tables import tables

RESULTS = Path(__file__).parents[2] / "results"
GPU = {"model": "A GPU"}


def earlier(measured, of_conf):
    """The section's rows as dicts of cells; [] where there is none."""
    for table in tables(measured, of_conf, []):
        if table.name == "earlier":
            titles = [column.title for column in table.columns]
            return [dict(zip(titles, row, strict=True)) for row in table.rows]
    return []


def evaluated(created, **details):
    return packed(created=f"2026-01-02T12:0{created}:00+00:00",
                  details=packed().details | details)  # fmt: skip


def single(**changes):
    return timed(kernels={"ours:xnor/int32_out": 100.0}, **changes)[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (single(), single(created=1)),
        (trained(value=9.0), trained(value=1.0, created=1)),
        (evaluated(0), evaluated(1, images_per_s=1.0)),
    ],
    ids=["time", "test error", "packed"],
)
def test_the_newest_of_the_same_settings_machine_and_competitor_stands(old, new, of_conf):
    assert newest([old, new]) == [new]
    (row,) = earlier([old, new], of_conf)
    assert row["earlier"].records == (old.name,)
    assert row["now"].records == (new.name,)
    for table in tables([old, new], of_conf, []):
        shown = {name for line in table.rows for cell in line for name in cell.records}
        assert table.name == "earlier" or old.name not in shown, table.name


@pytest.mark.parametrize(
    "other",
    [
        single(created=1, size=4096),
        single(created=1, gpu=GPU, device="cuda"),
        timed(created=1, kernels={"ours:xnor/bits_out": 1.0})[0],
        timed(created=1, kernels={"ours:xnor_gemm/int32_out": 1.0})[0],
        timed(created=1, kernels={"float32:torch": 1.0})[0],
    ],
    ids=["settings", "machine", "form", "variant", "role"],
)
def test_what_differs_in_one_of_them_stands_too(other, of_conf):
    measured = [single(), other]
    assert newest(measured) == measured
    assert earlier(measured, of_conf) == []


def test_a_network_of_another_shape_or_batch_is_another_workload():
    def measured_at(created, width=4096, batch=100):
        arch = {"name": "mlp", "depth": 3, "width": width}
        config = {"dataset": {"name": "mnist"}, "arch": arch, "trainer": {"batch_size": batch}}
        return timed("train_step", created, {"ours:fast": 1.0}, config=config)[0]

    measured = [measured_at(0), measured_at(1, width=512), measured_at(2, batch=50)]
    assert newest(measured) == measured
    assert newest([*measured, measured_at(3)]) == [*measured[1:], measured_at(3)]


def test_a_ratio_may_be_of_an_earlier_run_its_time_is_not(of_conf):
    """The newest run has no baseline: the latest that has both gives the ratio."""
    before = {"ours:xnor/packing": 100.0, "baseline:unoptimized": 900.0, "float32:torch": 300.0}
    after = {"ours:xnor/packing": 50.0, "float32:torch": 100.0}
    measured = [*timed(kernels=before), *timed(kernels=after, created=1)]
    table = next(t for t in tables(measured, of_conf, []) if t.name == "figure3")
    row = next(row for row in table.rows if row[1].text)
    assert [cell.text for cell in row[3:6]] == ["50.0 ms", "9.0x", "2.0x (torch float32)"]
    competitors = [row["competitor"].text for row in earlier(measured, of_conf)]
    assert competitors == ["xnor, float32 in, int32 out", "torch float32"]


def test_earlier_measurements_are_one_section_at_the_end_and_in_every_format(tmp_path, of_conf):
    for record in [single(value=123.0), single(created=1)]:
        records.write(record, tmp_path)
    measured = collect(tmp_path)
    drawn = figures(measured.records, of_conf)
    texts = content(tables(measured.records, of_conf, []), drawn, measured)
    main, title, section = texts["tables.md"].partition("## Earlier measurements")
    assert title and "\n## " not in section
    assert "123 ms" in section and "123 ms" not in main
    assert "123" in texts["tables/earlier.csv"] and "123 ms" in texts["tables/earlier.tex"]
    assert texts["index.html"].count("Earlier measurements</h2>") == 1
    for name, text in texts.items():
        if name.startswith("tables/") and "earlier" not in name:
            assert "123" not in text, name


def test_every_committed_record_is_in_a_table(of_conf):
    measured = collect(RESULTS).records
    shown = {
        name: {record for row in table.rows for cell in row for record in cell.records}
        for table in tables(measured, of_conf, [])
        for name in [table.name]
    }
    of_earlier = shown.pop("earlier", set())
    standing = {record.name for record in newest(measured)}
    in_main = set().union(*shown.values())
    assert standing <= in_main, "a standing record is in no table"
    assert {record.name for record in measured} - standing <= of_earlier
