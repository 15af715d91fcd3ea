"""CSV is for programs: pandas reads numbers, names hold the units, and a place holds one value."""

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from digit_runs import digits
from made_records import golden_records, packed, read_data, settings, timed, trained
from test_figures import every_kind
from test_report import steps_of

from bnnrun.report.collect import Collected, collect
from bnnrun.report.figures import figures
from bnnrun.report.report import content
from bnnrun.report.tables import tables
from bnnrun.runtime import file

RESULTS = Path(__file__).parents[2] / "results"
MODEL = RESULTS / "models" / "tiny_mnist_100_s0.safetensors"
NAME = re.compile(r"[a-z][a-z0-9_]*")
# "12", "1,024", "~0.28", "+3 %", "470 ms", "8K", "1.2 ± 0.1", "75 to 80"
LIKE_A_NUMBER = re.compile(r"[~+-]?\d[\d,.]*( ?[%×]| ?[a-zA-Z]{1,6}|x| (±|to) .*)?")
MARKUP = re.compile(r"<\w+>|±|\*\w|\w\*")
UNITS = ("pct", "ms", "s", "h", "mj", "pj", "mib", "bytes", "points", "low", "high")
SETTINGS = {
    "here",
    "authors_code",
    "paper_text",
    "changed_from",
    "remark",
}  # words, numbers and lists


def read(text: str) -> pd.DataFrame:
    """A CSV file as pandas reads it; AssertionError where it is not fit for programs."""
    frame = pd.read_csv(io.StringIO(text))
    assert len(frame), "a table without rows"
    assert all(map(NAME.fullmatch, frame)), list(frame)
    assert len(set(frame)) == len(text.splitlines()[0].split(","))
    for name in frame:
        column = frame[name].dropna()
        if pd.api.types.is_numeric_dtype(column) or set(column) <= {True, False}:
            assert np.isfinite(column.astype(float)).all(), name
            continue
        assert name.rpartition("_")[2] not in UNITS, (name, list(column))
        for cell in column:
            assert isinstance(cell, str), (name, cell)
            assert not MARKUP.search(cell), (name, cell)
            assert name in SETTINGS or not LIKE_A_NUMBER.fullmatch(cell), (name, cell)
    return frame


def csv_files(records, of_conf) -> dict[str, pd.DataFrame]:
    """Every CSV file that a report of these records has."""
    drawn = figures(records, of_conf)
    all_tables = tables(records, of_conf, ["x.json: altered"], [MODEL])
    texts = content(all_tables, drawn, Collected(records, [], []))
    assert all("\r" not in text for text in texts.values())
    return {name: read(text) for name, text in texts.items() if name.endswith(".csv")}


def all_records() -> list:
    """Of every table and figure."""
    ablation = {"optimizer__clip": "none", "optimizer__lr_scale": "none"}
    every = {"ours:xnor/packing": 100.0, "float32:torch": 1000.0, "low_precision:int8": 400.0,
             "baseline:unoptimized (rows)": 5000.0, "roofline:carry_save_adders": 50.0}  # fmt: skip
    return [
        *golden_records(), *every_kind(), packed(), *steps_of(), *timed(kernels=every, created=9),
        *(trained("digits_binary", 1.5, seed=seed, epochs=60) for seed in (0, 1)),
        trained("ablation_mnist", 2.0, epochs=20),
        trained("ablation_mnist", 3.0, epochs=20, changed=ablation),
        trained(config=settings("table1_mnist_theano", norm={"name": "shift", "eps": 1e-5})),
        packed(details=packed().details | {"sha256": file.sha256(MODEL)}),
        packed(details=packed().details | {"verified": {"hidden_bits": 5000, "scores": 1000}}),
    ]  # fmt: skip


def nothing_known(record):
    """The record of a tree that no commit holds, without curve and epochs, of unknown data."""
    details = {k: v for k, v in record.details.items() if k not in ("curve", "epochs", "count")}
    config = {k: v for k, v in record.config.items() if k != "trainer"}
    return dataclasses.replace(record, details=details, config=config, source={})


@pytest.mark.parametrize("change", [lambda r: r, nothing_known], ids=["all known", "nothing known"])
def test_every_csv_file_of_a_report_is_for_programs(of_conf, change):
    files = csv_files([change(record) for record in all_records()], of_conf)
    tables_ = {Path(name).stem for name in files if name.startswith("tables/")}
    committed = {path.stem for path in (RESULTS / "tables").glob("*.csv")}
    assert committed <= tables_ | {"ablations"}, "a table is not swept here"


def test_every_csv_file_of_a_report_of_one_run_is_for_programs(of_conf):
    assert csv_files([trained(data=read_data(test=0), epochs=3)], of_conf)


def test_every_committed_csv_file_is_for_programs():
    paths = [path for folder in ("tables", "figures") for path in (RESULTS / folder).glob("*.csv")]
    assert len(paths) > 20
    for path in paths:
        content_ = path.read_bytes()
        assert b"\r" not in content_
        read(content_.decode("utf-8"))


def test_numbers_are_the_records_own(of_conf):
    files = csv_files(golden_records(), of_conf)
    rows = files["tables/table1.csv"].set_index(["method", "dataset"])
    ours = rows.loc["BNN (Theano)", "mnist"]
    assert (ours.error_pct, ours.deviation_pct, ours.n) == (1.0, 0.1, 3)
    assert (ours.epochs, ours.of_epochs, ours.paper_pct) == (1000, 1000, 0.96)
    assert ours.verdict == "within noise"
    other = rows.loc["BinaryConnect", "mnist"]
    assert (other.paper_pct, other.paper_deviation_pct) == (1.29, 0.08)
    assert other.verdict == "not run" and pd.isna(other.error_pct)
    detail = files["tables/table1_detail.csv"].set_index("cell")
    short = detail.loc["table1.mnist.theano.2"]
    assert (short.verdict, short.epochs, short.of_epochs_pct, short.leads) == (
        "reduced budget", 20, 2, False,
    )  # fmt: skip


def test_the_committed_records_give_their_own_numbers(of_conf):
    collected = collect(RESULTS)
    files = csv_files(collected.records, of_conf)
    times = files["tables/times.csv"]
    of_records = {r.value for r in collected.records if r.quantity.endswith("_time")}
    near = [min(abs(value - other) / value for other in of_records) for value in times.median_ms]
    assert max(near) < 1e-3


@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "digits"])
@pytest.mark.parametrize("binarization", ["deterministic", "none"])
def test_summary_is_one_table_for_programs(bnnrun, dataset, binarization):
    outcome = bnnrun("summary", f"dataset={dataset}", f"binarization={binarization}", "format=csv")
    assert outcome.status == 0, outcome.err
    frame = read(outcome.out)
    assert (frame.float32_bytes == 4 * frame.weights).all()
    assert frame.c.notna().all() == (binarization == "deterministic")
    assert frame.drop(columns="layer").select_dtypes("number").shape[1] == frame.shape[1] - 1


def test_predictions_are_for_programs(here, tmp_path):
    _, pictures = digits(2)
    for name, picture in zip(("a.png", "b, c.png"), pictures, strict=True):
        picture.save(tmp_path / name)
    outcome = here("predict", "model=mlp", "a.png", "b, c.png", "format=csv")
    assert outcome.status == 0, outcome.err
    frame = read(outcome.out)
    assert list(frame.image) == ["a.png", "b, c.png"]
    assert pd.api.types.is_float_dtype(frame.score)
