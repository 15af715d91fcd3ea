"""Reports: golden tables from fixed records, damaged ones."""

import json
import math
from dataclasses import replace

import pytest
from made_records import golden_records, packed, read_data, settings, timed, trained

from bnnrun import paper, records
from bnnrun.report import formats
from bnnrun.report.collect import collect
from bnnrun.report.curves import drawable
from bnnrun.report.figures import figures
from bnnrun.report.pooling import pool
from bnnrun.report.report import content
from bnnrun.report.tables import tables


def table_rows(measured, of_conf, name, left_out=()):
    """One table of the records, its rows as dicts of cells."""
    table = next(t for t in tables(measured, of_conf, list(left_out)) if t.name == name)
    titles = [column.title for column in table.columns]
    return [dict(zip(titles, row, strict=True)) for row in table.rows]


def only(*measured):
    (single,) = pool(measured)
    return single


# ---- tables ----------------------------------------------------------------------------------

GOLDEN = """\
| cell | method, data | test error % | n | 95 % interval | epochs | of the paper's | paper % | verdict |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
| table1.mnist.torch7 | BNN (Torch7), MNIST |  |  |  |  |  | 1.40 | not run |
| table1.svhn.torch7 | BNN (Torch7), SVHN |  |  |  |  |  | 2.53 | not run |
| table1.cifar10.torch7 | BNN (Torch7), CIFAR-10 |  |  |  |  |  | 10.15 | not run |
| table1.mnist.theano | BNN (Theano), MNIST | 1.00 ± 0.10 | 3 | 0.75 to 1.25<sup>1</sup> | 1,000 | 100 % | 0.96 | within noise |
| table1.mnist.theano.2 | beneath: BNN (Theano), MNIST | 2.00<sup>2</sup> | 1 | 1.74 to 2.29<sup>3</sup> | 20 | 2 % | 0.96 | reduced budget (20 of 1,000 epochs) |
| table1.svhn.theano | BNN (Theano), SVHN | 9.00<sup>4</sup> | 1 | 8.66 to 9.35<sup>5</sup> | 200 | 100 % | 2.80 | different data |
"""  # noqa: E501


def test_the_detail_of_table_1_is_what_these_records_give(of_conf):
    table = next(t for t in tables(golden_records(), of_conf, []) if t.name == "table1_detail")
    text = formats.markdown(table, heading="")
    assert text.startswith(GOLDEN)
    assert text.endswith(
        "1. Student's t over 3 seeds\n2. seed 0: the tree was not clean\n"
        "3. Wilson's, one run on 10,000 images\n4. held \\| out\n"
        "5. Wilson's, one run on 26,032 images\n"
    )


def test_table_1_has_every_number_of_the_paper_and_ours_beside(of_conf):
    rows = {row["method"].text: row for row in table_rows(golden_records(), of_conf, "table1")}
    assert list(rows) == [row.label for row in paper.TABLE1_ROWS]
    shown = {str(row[name].paper) for row in rows.values() for name in paper.DATASETS.values()}
    assert shown - {""} == {number.text for number in paper.TABLE1.values()}
    ours = rows["BNN (Theano)"]["MNIST"]
    assert (ours.text, ours.id, ours.verdict) == (
        "1.00 ± 0.10 (n = 3)", "table1.mnist.theano", "within noise",
    )  # fmt: skip
    assert len(ours.records) == 3
    others = rows["Maxout (Goodfellow et al., 2013)"]["MNIST"]
    assert (others.text, others.id, others.verdict) == ("", "", "")
    empty = rows["BinaryConnect"]["SVHN"]
    assert (empty.text, empty.verdict) == ("", "not run")


def test_the_second_table_labels_last_and_best_on_test(of_conf):
    row = table_rows(golden_records(), of_conf, "protocols")[0]
    shown = {name: cell.text for name, cell in row.items()}
    assert shown["picked by validation"] == "1.00 ± 0.10"
    assert shown["last epoch"] == "1.20 ± 0.10"
    assert shown["best on the test set"] == "0.90 ± 0.10"


def test_a_run_with_a_setting_changed_fills_no_cell_and_is_an_ablation(of_conf):
    changed = trained(value=3.0, epochs=20, changed={"optimizer__lr_scale": "none"})
    unchanged = trained(value=2.0, epochs=20, created=1)
    rows = table_rows([changed], of_conf, "table1")
    cell = next(r["MNIST"] for r in rows if r["method"].text == "BNN (Theano)")
    assert cell.verdict == "not run"
    assert cell.notes == ("runs of this cell with settings changed stand under ablations",)
    (row,) = table_rows([changed, unchanged], of_conf, "ablations")
    assert row["changed (from)"].text == "optimizer.lr_scale=none (c)"
    assert (row["test error %"].text, row["unchanged %"].text) == ("3.00", "2.00")
    assert row["verdict"].text == "worse"


def test_a_run_with_a_setting_changed_is_not_drawn_as_the_cell(of_conf):
    right, other = trained(), trained(seed=1, changed={"arch__width": 64})
    assert drawable([right, other], of_conf) == [right]


def test_nor_is_one_of_an_experiment_without_a_cell(of_conf):
    """Whose curve would be that of whichever ablation came last."""
    right = trained("ablation_mnist", epochs=20)
    other = trained("ablation_mnist", epochs=20, created=1, changed={"optimizer__clip": "none"})
    assert not right.cell
    assert drawable([right, other], of_conf) == [right]


def test_another_group_is_one_change_and_older_records_lack_keys(of_conf):
    config = settings("table1_mnist_theano", norm={"name": "shift", "eps": 1e-5})
    del config["binarization"]["estimator"]
    (row,) = table_rows([trained(config=config)], of_conf, "ablations")
    assert row["changed (from)"].text == "norm=shift (batch)"


def test_runs_of_no_cell_are_listed_apart(of_conf):
    measured = [trained("digits_binary", 1.5, seed=s, epochs=60) for s in (0, 1)]
    (row,) = table_rows(measured, of_conf, "other_runs")
    assert row["experiment"].text == "digits_binary"
    assert row["network"].text == "mlp 3 x 512, weights sign, activations sign"
    assert (row["n"].text, row["test error %"].text) == ("2", "1.50 ± 0.00")


def test_the_summary_counts_and_estimates_hours(of_conf):
    all_tables = tables(golden_records(), of_conf, ["x.json: altered"])
    summary = all_tables[0]
    assert "matched: 1" in summary.notes[0]
    assert "run on different data: 1" in summary.notes[0]
    assert "not run: 10" in summary.notes[0]
    assert summary.notes[-1] == "A record was left out: x.json: altered"
    rows = table_rows(golden_records(), of_conf, "summary")
    hours = {row["cell"].text: row["hours of the whole schedule"].text for row in rows}
    assert hours["BNN (Theano), MNIST"] == "1"  # 1000 epochs of 3.6 s, pauses not counted
    assert hours["BNN (Torch7), MNIST"] == "1"
    assert hours["BNN (Theano), CIFAR-10"] == ""  # no epoch of these data was ever timed


@pytest.mark.parametrize("rate", [None, "fast", 0, -1.0, math.nan, math.inf])
def test_without_a_rate_no_hours_are_estimated(of_conf, rate):
    run = trained(epochs=20)
    run.details["images_per_s"] = rate
    rows = table_rows([run], of_conf, "summary")
    assert {row["hours of the whole schedule"].text for row in rows} == {""}


def test_the_summary_tells_how_far_a_number_is_from_the_papers_and_in_what_the_run_differs(of_conf):
    reduced = trained(value=2.0, epochs=20)
    other = trained("table1_svhn_theano", 9.0, epochs=200, data=read_data("svhn", notes=["held"]))
    by_cell = {row["cell"].text: row for row in table_rows([reduced, other], of_conf, "summary")}
    row = by_cell["BNN (Theano), MNIST"]
    assert row["points"].text == "+1.04"  # over 0.96
    # 1.04 % over sqrt(2 * 0.02 * 0.98 / 10,000) = 0.198 %
    assert row["standard deviations"].text == "+5.3"
    assert row["differs in"].text == "budget (20 of 1,000 epochs), protocol (2 differences)"
    row = by_cell["BNN (Theano), SVHN"]
    assert row["differs in"].text == "data, protocol (4 differences)"
    row = by_cell["BNN (Torch7), MNIST"]
    assert (row["points"].text, row["standard deviations"].text, row["differs in"].text) == (
        "",
        "",
        "",
    )


def test_another_group_is_told_with_its_rule(of_conf):
    rows = []
    for rule in ("paper", "code"):
        chosen = {"name": "shift_adamax", "rule": rule, "lr": 2.0**-10}
        config = settings("ablation_mnist", optimizer=chosen)
        rows += table_rows([trained("ablation_mnist", config=config)], of_conf, "ablations")
    assert [row["changed (from)"].text for row in rows] == [
        "optimizer=shift_adamax, rule=paper (adam)",
        "optimizer=shift_adamax, rule=code (adam)",
    ]


def test_a_packed_file_is_named_where_it_has_a_name_of_its_own(of_conf):
    (row,) = table_rows([packed()], of_conf, "packed")
    assert row["file"].text == "mnist.safetensors"
    assert packed().details["sha256"].startswith(row["sha256"].text)
    (row,) = table_rows(
        [packed(details=packed().details | {"file": "model.safetensors"})], of_conf, "packed"
    )
    assert row["file"].text == ""


def test_deviations_come_from_files_and_settings(of_conf):
    rows = table_rows([trained()], of_conf, "deviations")
    shown = {row["what"].text: row for row in rows}
    no_bias = next(row for what, row in shown.items() if what.startswith("no biases"))
    assert "mnist.theano" in no_bias["cells of Table 1"].text
    rates = [tuple(c.text for c in row.values())[1:] for row in rows
             if row["what"].text == "optimizer.lr"]  # fmt: skip
    assert rates == [
        ("2^-6", "2^-6", "2^-10", "cifar10.torch7, mnist.torch7"),
        ("2^-7", "2^-7", "2^-10", "svhn.torch7"),
    ]
    assert "optimizer.name" not in shown
    assert "arch.width" not in shown
    changed = [replace(e, config=replace(e.config, norm=replace(e.config.norm, eps=0.5)))
               for e in of_conf]  # fmt: skip
    shown = {row["what"].text for row in table_rows([trained()], changed, "deviations")}
    assert "norm.eps" in shown


# ---- times -----------------------------------------------------------------------------------


def test_ratios_are_of_one_run_and_of_the_latest_that_has_both(of_conf):
    every = {"ours:xnor/int32_out": 100.0, "float32:torch": 1000.0, "low_precision:int8": 400.0,
             "baseline:unoptimized (rows)": 5000.0, "roofline:carry_save_adders": 50.0}  # fmt: skip
    later = {"ours:xnor/int32_out": 80.0, "float32:torch": 400.0}
    measured = [*timed(kernels=every), *timed(kernels=later, created=5)]
    row = next(r for r in table_rows(measured, of_conf, "figure3") if r["kernel"].text)
    shown = {name: cell.text for name, cell in row.items()}
    assert (shown["median"], shown["over float32"]) == ("80.0 ms", "5.0x (torch float32)")
    assert shown["over the best precision"] == "4.0x (torch int8)"
    assert shown["over baseline"] == "100x"  # by rates: the baseline made half of the product


def test_times_have_one_row_a_competitor_the_latest(of_conf):
    first = {"float32:numpy (1.0)": 9.0, "float32:torch": 8.0}
    second = {"float32:numpy (2.0)": 7.0, "float32:torch": 6.0}
    measured = [*timed(kernels=first), *timed(kernels=second, created=3)]
    rows = table_rows(measured, of_conf, "times")
    assert [(r["competitor"].text, r["median"].text) for r in rows] == [
        ("NumPy float32 (2.0)", "7.00 ms"),
        ("torch float32", "6.00 ms"),
    ]
    assert {r["date"].text for r in rows} == {"2026-01-02"}


def test_a_workload_without_a_record_is_not_run_on_either_device(of_conf):
    rows = table_rows([trained()], of_conf, "figure3")
    assert [(r["machine"].text, r["median"].verdict) for r in rows] == 4 * [
        ("processor", "not run"), ("GPU", "not run"),
    ]  # fmt: skip
    gpu = timed(device="cuda", gpu={"model": "A GPU"})
    rows = table_rows(gpu, of_conf, "figure3")
    assert [r["machine"].text for r in rows[:2]] == ["processor", "A GPU"]


def test_speed_up_against_size_tells_where_it_overtakes(of_conf):
    slow = {"ours:xnor/packing": 200.0, "float32:torch": 100.0}
    fast = {"ours:xnor/packing": 50.0, "float32:torch": 100.0}
    measured = [*timed(kernels=slow, size=1024), *timed(kernels=fast, size=4096)]
    table = next(t for t in tables(measured, of_conf, []) if t.name == "speedup")
    assert [row[3].text for row in table.rows] == ["0.5x", "2.0x"]
    assert "from about 2048 on" in table.notes[1]


@pytest.mark.parametrize(
    ("other", "ratios"),
    [
        ({"float32:numpy": 60.0}, {"figure3": "3.0x (NumPy float32)", "speedup": "3.0x"}),
        (
            {"peer:openvino_float32": 50.0, "peer:openvino/float32_out": 30.0},
            {"figure3": "2.5x (OpenVINO float32)", "speedup": "2.5x"},
        ),
        ({"low_precision:int8": 10.0}, {"figure3": "5.0x (torch float32)", "speedup": "5.0x"}),
    ],
)
def test_float32_is_the_fastest_library_that_computes_in_it(of_conf, other, ratios):
    measured = timed(kernels={"ours:xnor/packing": 20.0, "float32:torch": 100.0} | other)
    columns = {"figure3": "over float32", "speedup": "packing of A timed, over float32"}
    for table, column in columns.items():
        rows = table_rows(measured, of_conf, table)
        assert ratios[table] in [row[column].text for row in rows]


STEPS = {"ours:fast": 100.0, "float32:torch": 400.0, "float32:torch/memory_kept": 300.0,
         "roofline:carry_save_adders": 5.0}  # fmt: skip


def steps_of(created=0, **kernels: float) -> list:
    """The records of one `bench workload=train_step`, parts and roofline of the fast step known."""
    measured = []
    for record in timed("train_step", created, STEPS | kernels):
        more = {"memory_bytes": 3 * 2**29}
        if record.details["role"] == "ours":
            more |= {"parts_ms": {"sums": 60.0, "update": 40.0}, "floor_ms": {"sums": 20.0}}
        measured.append(replace(record, details=record.details | more))
    return measured


def test_training_steps_tell_their_parts_their_memory_and_their_roofline(of_conf):
    rows = table_rows([*steps_of(**{"ours:fast": 7.0}), *steps_of(created=5)], of_conf, "steps")
    shown = [{name: cell.text for name, cell in row.items()} for row in rows]
    assert [row["step"] for row in shown] == [
        "bnnrun, fast",
        "bnnrun, fast: its roofline, 20 % of it",
        "torch float32",
        "torch float32, memory kept",
    ]
    assert [row["median"] for row in shown] == ["100 ms", "20.0 ms", "400 ms", "300 ms"]
    assert [row["over float32"] for row in shown] == ["4.0x", "", "1.0x", "1.3x"]
    assert [row["MiB at most"] for row in shown] == ["1,536", "", "1,536", "1,536"]
    assert [row["update"] for row in shown] == ["40.0", "", "", ""]
    assert rows[0]["median"].id.startswith("steps.train-step.mnist-mlp-3-x-4096-batch-100.")


def test_steps_without_parts_are_no_table(of_conf):
    measured = timed("train_step", kernels=STEPS)
    assert "steps" not in {table.name for table in tables(measured, of_conf, [])}


# ---- damaged records -------------------------------------------------------------------------


def signed(content):
    content = {k: v for k, v in content.items() if k != "checksum"}
    return content | {"checksum": records._checksum(content)}


DAMAGE = {
    "half": (lambda c: None, "not a record"),
    "altered": (lambda c: c | {"value": 0.1}, "altered"),
    "unknown version": (lambda c: signed(c | {"format": 99}), "record format 99"),
    "value": (lambda c: signed(c | {"value": "1"}), "no finite number"),
    "not a number": (lambda c: signed(c | {"value": float("nan")}), "no finite number"),
    "config": (lambda c: signed(c | {"config": []}), "config is no object"),
    "time": (lambda c: signed(c | {"created": "now"}), "created no time"),
    "quantity": (lambda c: signed(c | {"quantity": "luck"}), "no table for it"),
    "timing": (lambda c: signed(c | {"quantity": "gemm_time"}), "without details.role"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_record_is_named_and_the_rest_is_shown(tmp_path, kind, of_conf):
    change, message = DAMAGE[kind]
    good = records.write(trained(), tmp_path)
    bad = records.write(trained(seed=1), tmp_path)
    changed = change(json.loads(bad.read_text()))
    bad.write_text(bad.read_text()[:200] if changed is None else json.dumps(changed))
    measured = collect(tmp_path)
    assert [r.name for r in measured.records] == [good.name]
    (line,) = measured.left_out
    assert line.startswith(f"{bad.name}: ")
    assert message in line
    assert str(tmp_path) not in line
    assert content(tables(measured.records, of_conf, measured.left_out), [], measured)


def test_a_copied_record_counts_once(tmp_path):
    path = records.write(trained(), tmp_path)
    (path.parent / "copy.json").write_text(path.read_text())
    measured = collect(tmp_path)
    assert len(measured.records) == 1
    assert measured.left_out == [f"{path.name}: the same record as copy.json"]


def test_records_of_every_kind_with_all_they_need_only(of_conf):
    """What `collect` lets pass, the tables and figures can show: no key is taken for granted."""
    bare = trained(details={}, config={}, data={}, source={}, versions={}, cpu={})
    times = [
        replace(r, details={key: r.details[key] for key in ("role", "variant")}, cpu={})
        for r in timed()
    ]
    measured = [bare, packed(), *times]
    assert tables(measured, of_conf, [])
    assert figures(measured, of_conf) is not None
