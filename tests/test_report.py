"""Reports: golden tables from fixed records, damaged ones, formats, --check."""

import csv
import io
import json
import locale
import time
from dataclasses import replace

import pytest
from made_records import packed, read_data, settings, timed, trained

from bnnrun import paper, records
from bnnrun.cli.reporting import experiments
from bnnrun.report import formats
from bnnrun.report.collect import collect
from bnnrun.report.content import Cell, Table
from bnnrun.report.figures import figures
from bnnrun.report.pooling import pool
from bnnrun.report.report import BEGIN, END, content, drawable
from bnnrun.report.tables import tables


@pytest.fixture(scope="module")
def of_conf():
    return experiments()


def made(found, of_conf, name, left_out=()):
    """One table of the records, its rows as dicts of cells."""
    table = next(t for t in tables(found, of_conf, list(left_out)) if t.name == name)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def only(*found):
    (single,) = pool(found)
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


def golden_records():
    return [
        *(trained(value=0.9 + 0.1 * seed, seed=seed) for seed in range(3)),
        trained(value=2.0, epochs=20, source={"commit": "c0ffee", "clean": False}),
        trained("table1_svhn_theano", 9.0, epochs=200,
                data=read_data("svhn", notes=["held | out"])),
    ]  # fmt: skip


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
    rows = {row["method"].text: row for row in made(golden_records(), of_conf, "table1")}
    assert list(rows) == [row.label for row in paper.TABLE1_ROWS]
    shown = {row[name].paper for row in rows.values() for name in paper.DATASETS.values()}
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
    row = made(golden_records(), of_conf, "protocols")[0]
    shown = {name: cell.text for name, cell in row.items()}
    assert shown["picked by validation"] == "1.00 ± 0.10"
    assert shown["last epoch"] == "1.20 ± 0.10"
    assert shown["best on the test set"] == "0.90 ± 0.10"


def test_a_run_with_a_setting_changed_fills_no_cell_and_is_an_ablation(of_conf):
    changed = trained(value=3.0, epochs=20, changed={"optimizer__lr_scale": "none"})
    unchanged = trained(value=2.0, epochs=20, created=1)
    rows = made([changed], of_conf, "table1")
    cell = next(r["MNIST"] for r in rows if r["method"].text == "BNN (Theano)")
    assert cell.verdict == "not run"
    assert cell.notes == ("runs of this cell with settings changed stand under ablations",)
    (row,) = made([changed, unchanged], of_conf, "ablations")
    assert row["changed (from)"].text == "optimizer.lr_scale=none (c)"
    assert (row["test error %"].text, row["unchanged %"].text) == ("3.00", "2.00")
    assert row["verdict"].text == "worse"


def test_a_run_with_a_setting_changed_is_not_drawn_as_the_cell(of_conf):
    right, other = trained(), trained(seed=1, changed={"arch__width": 64})
    assert drawable([right, other], of_conf) == [right]


def test_another_group_is_one_change_and_older_records_lack_keys(of_conf):
    config = settings("table1_mnist_theano", norm={"name": "shift", "eps": 1e-5})
    del config["binarization"]["gate"]
    (row,) = made([trained(config=config)], of_conf, "ablations")
    assert row["changed (from)"].text == "norm=shift (batch)"


def test_runs_of_no_cell_are_listed_apart(of_conf):
    found = [trained("digits_binary", 1.5, seed=s, epochs=60) for s in (0, 1)]
    (row,) = made(found, of_conf, "other_runs")
    assert row["experiment"].text == "digits_binary"
    assert row["network"].text == "mlp 3 x 512, weights sign, activations sign"
    assert (row["n"].text, row["test error %"].text) == ("2", "1.50 ± 0.00")


def test_the_summary_counts_and_estimates_hours(of_conf):
    found = tables(golden_records(), of_conf, ["x.json: altered"])
    summary = found[0]
    assert "matched: 1" in summary.notes[0]
    assert "run on different data: 1" in summary.notes[0]
    assert "not run: 10" in summary.notes[0]
    assert summary.notes[-1] == "A record was left out: x.json: altered"
    rows = made(golden_records(), of_conf, "summary")
    hours = {row["cell"].text: row["hours of the whole schedule"].text for row in rows}
    assert hours["BNN (Theano), MNIST"] == "1"  # 1000 epochs of 3.6 s
    assert hours["BNN (Torch7), MNIST"] == "1"
    assert hours["BNN (Theano), CIFAR-10"] == ""  # no epoch of these data was ever timed


def test_the_summary_tells_how_far_a_number_is_from_the_papers_and_in_what_the_run_differs(of_conf):
    reduced = trained(value=2.0, epochs=20)
    other = trained("table1_svhn_theano", 9.0, epochs=200, data=read_data("svhn", notes=["held"]))
    found = {row["cell"].text: row for row in made([reduced, other], of_conf, "summary")}
    row = found["BNN (Theano), MNIST"]
    assert row["points"].text == "+1.04"  # over 0.96
    # 1.04 % over sqrt(2 * 0.02 * 0.98 / 10,000) = 0.198 %
    assert row["deviations"].text == "+5.3"
    assert row["differs in"].text == "budget (20 of 1,000 epochs), protocol (2 points)"
    row = found["BNN (Theano), SVHN"]
    assert row["differs in"].text == "data, protocol (4 points)"
    row = found["BNN (Torch7), MNIST"]
    assert (row["points"].text, row["deviations"].text, row["differs in"].text) == ("", "", "")


def test_another_group_is_told_with_its_rule(of_conf):
    rows = []
    for rule in ("paper", "code"):
        chosen = {"name": "shift_adamax", "rule": rule, "lr": 2.0**-10}
        config = settings("ablation_mnist", optimizer=chosen)
        rows += made([trained("ablation_mnist", config=config)], of_conf, "ablations")
    assert [row["changed (from)"].text for row in rows] == [
        "optimizer=shift_adamax, rule=paper (adam)",
        "optimizer=shift_adamax, rule=code (adam)",
    ]


def test_a_packed_file_is_named_where_it_has_a_name_of_its_own(of_conf):
    (row,) = made([packed()], of_conf, "packed")
    assert row["file"].text == "mnist.safetensors"
    assert packed().details["sha256"].startswith(row["sha256"].text)
    (row,) = made(
        [packed(details=packed().details | {"file": "model.safetensors"})], of_conf, "packed"
    )
    assert row["file"].text == ""


def test_deviations_come_from_files_and_settings(of_conf):
    rows = made([trained()], of_conf, "deviations")
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
    shown = {row["what"].text for row in made([trained()], changed, "deviations")}
    assert "norm.eps" in shown


# ---- times -----------------------------------------------------------------------------------


def test_ratios_are_of_one_run_and_of_the_latest_that_has_both(of_conf):
    every = {"xnor, int32 out": 100.0, "torch float32": 1000.0, "torch int8": 400.0,
             "baseline float32 (rows)": 5000.0, "limit: adders": 50.0}  # fmt: skip
    later = {"xnor, int32 out": 80.0, "torch float32": 400.0}
    found = [*timed(kernels=every), *timed(kernels=later, created=5)]
    row = next(r for r in made(found, of_conf, "figure3") if r["kernel"].text)
    shown = {name: cell.text for name, cell in row.items()}
    assert (shown["median"], shown["over float32"]) == ("80.0 ms", "5.0x")
    assert shown["over the best precision"] == "4.0x (torch int8)"
    assert shown["over baseline"] == "100x"  # by rates: the baseline made half of the product
    (note,) = (t.notes[1] for t in tables(found, of_conf, []) if t.name == "times")
    assert note.endswith(": 0.")


def test_times_have_one_row_a_competitor_the_latest(of_conf):
    first = {"NumPy float32 (1.0)": 9.0, "torch float32": 8.0}
    second = {"NumPy float32 (2.0)": 7.0, "torch float32": 6.0}
    found = [*timed(kernels=first), *timed(kernels=second, created=3)]
    rows = made(found, of_conf, "times")
    assert [(r["competitor"].text, r["median"].text) for r in rows] == [
        ("NumPy float32 (2.0)", "7.00 ms"),
        ("torch float32", "6.00 ms"),
    ]
    assert {r["date"].text for r in rows} == {"2026-01-02"}


def test_a_workload_without_a_record_is_not_run_on_either_device(of_conf):
    rows = made([trained()], of_conf, "figure3")
    assert [(r["machine"].text, r["median"].verdict) for r in rows] == 4 * [
        ("processor", "not run"), ("GPU", "not run"),
    ]  # fmt: skip
    gpu = timed(device="cuda", gpu={"model": "A GPU"})
    rows = made(gpu, of_conf, "figure3")
    assert [r["machine"].text for r in rows[:2]] == ["processor", "A GPU"]


def test_speed_up_against_size_tells_where_it_overtakes(of_conf):
    slow = {"xnor, float32 in, int32 out": 200.0, "torch float32": 100.0}
    fast = {"xnor, float32 in, int32 out": 50.0, "torch float32": 100.0}
    found = [*timed(kernels=slow, size=1024), *timed(kernels=fast, size=4096)]
    table = next(t for t in tables(found, of_conf, []) if t.name == "speedup")
    assert [row[3].text for row in table.rows] == ["0.5x", "2.0x"]
    assert "from about 2048 on" in table.notes[0]


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
    "timing": (lambda c: signed(c | {"quantity": "gemm_time"}), "without details.competitor"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_record_is_named_and_the_rest_is_shown(tmp_path, kind, of_conf):
    change, message = DAMAGE[kind]
    good = records.write(trained(), tmp_path)
    bad = records.write(trained(seed=1), tmp_path)
    changed = change(json.loads(bad.read_text()))
    bad.write_text(bad.read_text()[:200] if changed is None else json.dumps(changed))
    found = collect(tmp_path)
    assert [r.name for r in found.records] == [good.name]
    (line,) = found.left_out
    assert line.startswith(f"{bad.name}: ")
    assert message in line
    assert str(tmp_path) not in line
    assert content(tables(found.records, of_conf, found.left_out), [], found)


def test_a_copied_record_counts_once(tmp_path):
    path = records.write(trained(), tmp_path)
    (path.parent / "copy.json").write_text(path.read_text())
    found = collect(tmp_path)
    assert len(found.records) == 1
    assert found.left_out == [f"{path.name}: the same record as copy.json"]


def test_records_of_every_kind_with_all_they_need_only(of_conf):
    """What `collect` lets pass, the tables and figures can show: no key is taken for granted."""
    bare = trained(details={}, config={}, data={}, source={}, versions={}, cpu={})
    times = [replace(r, details={"competitor": r.details["competitor"]}, cpu={}) for r in timed()]
    found = [bare, packed(), *times]
    assert tables(found, of_conf, [])
    assert figures(drawable(found, of_conf)) is not None


# ---- formats ---------------------------------------------------------------------------------

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


# ---- the verb --------------------------------------------------------------------------------


def written(tmp_path):
    folder = tmp_path / "results"
    return {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "runs"
    }


@pytest.fixture
def results(tmp_path):
    """Results of the project's own: records, and a README with markers."""
    for record in [*golden_records(), packed(), *timed()]:
        records.write(record, tmp_path / "results")
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    return tmp_path


def test_report_writes_every_format_and_the_readmes_block(bnnrun, results):
    outcome = bnnrun("report")
    assert outcome.status == 0, outcome.err
    found = written(results)
    assert {"results/tables.md", "results/index.html", "results/tables/table1.csv",
            "results/tables/table1.tex"} <= set(found)  # fmt: skip
    assert any(name.startswith("results/figures/") for name in found)
    readme = (results / "README.md").read_text()
    assert readme.startswith(f"before\n{BEGIN}\n### Table 1")
    assert readme.endswith(f"{END}\nafter\n")
    assert "old" not in readme.split(END)[0].splitlines()
    for name, content_ in found.items():
        if name.endswith((".md", ".csv", ".tex", ".html")):
            assert str(results) not in content_.decode(), name


def test_the_same_bytes_in_another_folder_place_and_time(bnnrun, results, monkeypatch, tmp_path):
    bnnrun("report")
    first, readme = written(results), (results / "README.md").read_bytes()
    bnnrun("report")
    assert written(results) == first
    assert (results / "README.md").read_bytes() == readme
    elsewhere = tmp_path / "a folder" / "elsewhere"
    for path in sorted((results / "results" / "runs").iterdir(), reverse=True):
        records.write(records.read(path), elsewhere / "results")
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    monkeypatch.chdir(elsewhere)
    before = locale.setlocale(locale.LC_ALL)
    for name in ("de_DE.UTF-8", "C.UTF-8"):
        try:
            locale.setlocale(locale.LC_ALL, name)
        except locale.Error:
            continue
        break
    try:
        assert bnnrun("report").status == 0
    finally:
        locale.setlocale(locale.LC_ALL, before)
    assert written(elsewhere) == first


def test_check_names_the_file_that_is_stale(bnnrun, results):
    assert bnnrun("report").status == 0
    assert bnnrun("report", "--check").status == 0
    before = written(results)
    for name in ("tables.md", "tables/table1.csv", "tables/times.tex", "index.html"):
        path = results / "results" / name
        good = path.read_text()
        path.write_text(good.replace("1.00", "0.90").replace("100 ms", "1 ms"))
        outcome = bnnrun("report", "--check")
        assert outcome.status == 1
        assert f"differs from the records: results/{name}\n" in outcome.err
        assert outcome.err.count("differs from the records:") == 1
        path.write_text(good)
    figure = next(name for name in before if name.startswith("results/figures/"))
    (results / figure).unlink()
    assert figure in bnnrun("report", "--check").err


def test_check_sees_a_stale_readme_a_new_record_and_a_surplus_file(bnnrun, results):
    bnnrun("report")
    readme = results / "README.md"
    readme.write_text(readme.read_text().replace("1.00", "0.90"))
    assert "README.md" in bnnrun("report", "--check").err
    (results / "results" / "tables" / "old.csv").write_text("a\n")
    assert "tables/old.csv (not made" in bnnrun("report", "--check").err
    bnnrun("report")
    assert not (results / "results" / "tables" / "old.csv").exists()
    assert bnnrun("report", "--check").status == 0
    records.write(trained(value=1.3, seed=3, created=4), results / "results")
    outcome = bnnrun("report", "--check")
    assert outcome.status == 1
    assert "results/tables/table1.csv" in outcome.err


def test_check_fails_for_a_damaged_record(bnnrun, results):
    (results / "results" / "runs" / "broken.json").write_text("{")
    assert bnnrun("report").status == 0
    assert "broken.json" in (results / "results" / "tables.md").read_text()
    outcome = bnnrun("report", "--check")
    assert outcome.status == 1
    assert "broken.json: not a record" in outcome.err
    assert "1 records cannot be read" in outcome.err


def test_a_cell_is_followed_to_its_runs(bnnrun, results):
    shown = bnnrun("report", "cell=table1.mnist.theano").out
    assert "1.00 ± 0.10 (n = 3)" in shown
    assert "within noise" in shown
    for seed in range(3):
        assert f"bnnrun train experiment=table1_mnist_theano seed={seed}\n" in shown
    assert shown.count("c0ffee") == 3
    assert "A Processor" in shown
    assert "valid_error_pct" in shown
    assert "torch 2.6.0" in shown
    assert not (results / "results" / "tables.md").exists()


def test_an_unknown_cell_names_the_nearest(bnnrun, results):
    outcome = bnnrun("report", "cell=table1.mnist.thano")
    assert outcome.status == 2
    assert "did you mean 'table1.mnist.theano'?" in outcome.err


def test_without_markers_or_in_another_folder_no_readme_is_touched(bnnrun, results):
    (results / "README.md").write_text("mine\n")
    bnnrun("report")
    assert (results / "README.md").read_text() == "mine\n"


def test_a_thousand_records_take_less_than_five_seconds(tmp_path, of_conf):
    for i in range(500):
        epochs = 20 + i // 100
        records.write(trained(value=1 + 0.001 * i, seed=i, epochs=epochs), tmp_path)
    for i in range(250):
        for record in timed(created=i % 60, size=32 * (1 + i)):
            records.write(record, tmp_path)
    began = time.process_time()  # its own seconds: a busy machine is no slower report
    found = collect(tmp_path)
    texts = content(tables(found.records, of_conf, found.left_out), [], found)
    taken = time.process_time() - began
    assert len(found.records) == 1000
    assert "index.html" in texts
    assert taken < 5, f"{taken:.1f} s"
