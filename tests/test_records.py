"""Records: written whole, read back, refused when altered; the tables made from them."""

import dataclasses
import json

import pytest

from bnnrun import machine, records
from bnnrun.errors import InputError
from bnnrun.records import Record
from bnnrun.report.tables import error_table, mean_and_deviation, pool


def record(seed=0, value=1.5, created="2026-01-02T03:04:05+00:00", **changes) -> Record:
    config = {
        "seed": seed,
        "dataset": {"name": "digits"},
        "arch": {"name": "mlp", "depth": 3, "width": 512},
        "binarization": {"weights": "sign", "activations": "sign"},
        "trainer": {"epochs": 60},
    }
    base = Record(
        experiment="digits_binary",
        cell="",
        quantity="test_error",
        value=value,
        unit="%",
        seed=seed,
        device="cpu",
        details={"epochs": 60, "last_epoch_test_error_pct": 2.0, "valid_error_pct": 1.0},
        config=config,
        command="bnnrun train experiment=digits_binary",
        data={"name": "digits"},
        created=created,
    )
    return dataclasses.replace(base, **changes)


def test_a_record_comes_back_as_it_was(tmp_path):
    written = record()
    path = records.write(written, tmp_path)
    assert path.parent == tmp_path / "runs"
    assert records.read(path) == written


def test_a_record_says_what_it_was_measured_with(tmp_path):
    content = json.loads(records.write(record(), tmp_path).read_text())
    assert {"torch", "python", "bnnrun"} <= set(content["versions"])
    assert content["cpu"]["cores"] >= 1
    assert content["peak_memory_bytes"] > 1e6
    assert set(content["source"]) == {"commit", "clean"}


def test_the_commit_can_be_told_where_there_is_no_repository(monkeypatch):
    monkeypatch.setenv("BNNRUN_COMMIT", "abc123")
    assert machine.source_state.__wrapped__() == {"commit": "abc123", "clean": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c | {"value": 0.1}, "altered"),
        (lambda c: c | {"format": 99}, "format 99"),
        (lambda c: {k: v for k, v in c.items() if k != "checksum"}, "no checksum"),
        (lambda c: [c], "no checksum"),
    ],
)
def test_an_altered_record_is_refused_and_the_rest_is_read(tmp_path, change, message):
    good = records.write(record(seed=1), tmp_path)
    bad = records.write(record(seed=2), tmp_path)
    bad.write_text(json.dumps(change(json.loads(bad.read_text()))))
    with pytest.raises(InputError, match=message):
        records.read(bad)
    whole, damaged = records.read_all(tmp_path)
    assert [r.name for r in whole] == [good.name]
    assert len(damaged) == 1
    assert bad.name in damaged[0]


def test_half_a_record_is_refused(tmp_path):
    path = records.write(record(), tmp_path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(InputError, match="not a record"):
        records.read(path)


def test_runs_alike_in_all_but_the_seed_are_pooled_and_a_repeated_seed_counts_once():
    older = record(seed=0, value=9.0, created="2026-01-01T00:00:00+00:00")
    groups = pool([older, record(seed=0, value=1.0), record(seed=1, value=2.0)])
    assert [[r.value for r in group] for group in groups] == [[1.0, 2.0]]


def test_another_budget_is_another_row():
    other = record(seed=1, config=record().config | {"trainer": {"epochs": 2}})
    assert len(pool([record(), other])) == 2


def test_other_data_is_another_row_and_its_notes_are_shown():
    data = {"name": "svhn", "files": [{"md5": "0"}], "notes": ["held out from train"]}
    other = record(seed=1, data=data)
    assert len(pool([record(), other])) == 2
    _, rows = error_table([other])
    assert rows[0][1] == "svhn; held out from train"


def test_the_table_shows_mean_deviation_and_count():
    columns, rows = error_table([record(seed=0, value=1.0), record(seed=1, value=2.0)])
    assert dict(zip(columns, rows[0], strict=True)) == {
        "runs": "digits_binary",
        "data": "digits",
        "network": "mlp 3 x 512, weights sign, activations sign",
        "test error %": "1.50 ± 0.71",
        "n": "2",
        "epochs": "60",
        "last epoch %": "2.00 ± 0.00",
        "valid %": "1.00 ± 0.00",
    }


def test_a_single_run_has_no_deviation():
    assert mean_and_deviation([1.234]) == "1.23"


def test_report_is_the_same_bytes_twice_and_names_what_it_leaves_out(bnnrun, tmp_path):
    for seed in (2, 0, 1):
        records.write(record(seed=seed, value=1.0 + seed), "results")
    (tmp_path / "results" / "runs" / "broken.json").write_text("{")
    outcome = bnnrun("report")
    assert outcome.status == 0
    assert "broken.json" in outcome.err
    first = (tmp_path / "results" / "tables.md").read_bytes()
    assert "| digits_binary | digits |" in first.decode()
    assert "2.00 ± 1.00" in first.decode()
    bnnrun("report")
    assert (tmp_path / "results" / "tables.md").read_bytes() == first
