"""`bnnrun report`: what it writes, --check, cell=..., and the README's block."""

import locale
import time

import pytest
from made_records import golden_records, packed, timed, trained

from bnnrun import records
from bnnrun.report.collect import collect
from bnnrun.report.readme import BEGIN, END
from bnnrun.report.report import content
from bnnrun.report.tables import tables


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
    files = written(results)
    assert {"results/tables.md", "results/index.html", "results/tables/table1.csv",
            "results/tables/table1.tex"} <= set(files)  # fmt: skip
    assert any(name.startswith("results/figures/") for name in files)
    readme = (results / "README.md").read_text()
    assert readme.startswith(f"before\n{BEGIN}\n### Table 1")
    assert readme.endswith(f"{END}\nafter\n")
    assert "old" not in readme.split(END)[0].splitlines()
    for name, content_ in files.items():
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
        bad = good.replace("1.00", "0.90").replace("mnist,1,", "mnist,0.9,")
        path.write_text(bad.replace("100 ms", "1 ms"))
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


def test_the_beginning_of_names_lists_the_cells_that_go_on_so(bnnrun, results):
    lines = bnnrun("report", "cell=table1.mnist").out.splitlines()
    shown = {line.partition(" ")[0]: line.partition(" ")[2].strip() for line in lines}
    assert {name.rpartition(".")[0] for name in shown} >= {"table1.mnist"}
    assert all(name.startswith("table1.mnist.") for name in shown)
    assert shown["table1.mnist.theano"] == "1.00 ± 0.10 (n = 3) (paper 0.96), within noise"
    assert shown["table1.mnist.torch7"] == "(paper 1.40), not run"
    for name in shown:
        assert bnnrun("report", f"cell={name}").out.startswith(f"{name}\n")


def test_half_a_name_is_no_beginning(bnnrun, results):
    outcome = bnnrun("report", "cell=table1.mnist.the")
    assert outcome.status == 2
    assert "no table has such a cell" in outcome.err


def test_a_time_is_told_with_its_calls_spread_and_limit(bnnrun, results):
    kernels = {"ours:xnor/bits_out": 100.0, "float32:torch": 1000.0}
    for record in timed(kernels=kernels, created=9):
        record.details["stolen_pct"] = 1.25
        records.write(record, results / "results")
    (name,) = (
        line.split()[0]
        for line in bnnrun("report", "cell=figure3.gemm").out.splitlines()
        if line.endswith(" 100 ms") and "bits-out" in line
    )
    shown = bnnrun("report", f"cell={name}").out
    assert (
        "  timed:        5 calls, fastest 100 ms, spread 10 %; 10 GMAC/s, 50 % of the roofline; "
        "2 threads, 1.2 % taken by a hypervisor\n" in shown
    )


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
    collected = collect(tmp_path)
    texts = content(tables(collected.records, of_conf, collected.left_out), [], collected)
    taken = time.process_time() - began
    assert len(collected.records) == 1000
    assert "index.html" in texts
    assert taken < 5, f"{taken:.1f} s"
