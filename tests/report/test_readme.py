"""The README's block: Table 1, a line for each workload, the packed networks, and no more."""

from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pytest
from made_records import packed, timed, trained
from test_report import steps_of

from bnnrun.report import figure3
from bnnrun.report.figures import figures
from bnnrun.report.readme import BEGIN, END, block
from bnnrun.report.tables import tables
from bnnrun.report.timing import timed_runs

README = Path(__file__).parents[2] / "README.md"
GPU = {"model": "A GPU"}
PRODUCT = {"ours:xnor/bits_out": 40.0, "ours:xnor/packing": 100.0, "float32:torch": 1000.0,
           "baseline:unoptimized": 9000.0}  # fmt: skip


def lines(text: str, title: str) -> list[list[str]]:
    """The rows of the table under a heading, its header left out."""
    _, _, rest = text.partition(f"### {title}")
    rows = takewhile(lambda line: line.startswith("|"), rest.splitlines()[2:])
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows][2:]


def on_gpu(kernels, **changes):
    return timed(kernels=kernels, gpu=GPU, device="cuda", **changes)


def test_a_workload_has_one_line_of_its_fastest_machine_with_the_kernel_timed_as_the_papers(
    of_conf,
):
    fast = {key: value / 10 for key, value in PRODUCT.items()}
    network = {"ours:xnor/bytes": 600.0, "ours:xnor/planes": 900.0, "float32:torch": 6000.0}
    measured = [*timed(kernels=PRODUCT), *on_gpu(fast), *timed("mlp", size=10_000, kernels=network),
             *steps_of()]  # fmt: skip
    rows = lines(block(measured, of_conf), "Times")
    assert [row[:4] for row in rows] == [
        ["product of two 8192 x 8192 matrices", "xnor, float32 in, int32 out", "A GPU", "10.0 ms"],
        ["MNIST network, 10,000 images", "xnor, first layer by bytes", "A, 2 threads", "600 ms"],
        ["training step", "bnnrun, fast", "A, 2 threads", "100 ms"],
    ]
    assert rows[0][4].startswith("90x")


def test_an_earlier_measurement_is_not_in_the_readme_though_it_was_faster(of_conf):
    slower = {key: 2 * value for key, value in PRODUCT.items()}
    text = block([*timed(kernels=PRODUCT), *timed(kernels=slower, created=1)], of_conf)
    assert "200 ms" in text
    assert "100 ms" not in text and "Earlier" not in text


def test_packed_networks_are_those_of_table_1(of_conf):
    run = trained(value=1.0, seed=0, epochs=20)
    trained_from = {"dataset": "mnist", "seed": "0", "epoch": "20", "test_error_pct": "1.0000"}
    of_table_1 = packed(details=packed().details | {"trained": trained_from, "sha256": "1" * 64})
    other = packed(value=5.0, details=packed().details | {"sha256": "2" * 64})
    (row,) = lines(block([run, of_table_1, other], of_conf), "Packed")
    assert row[0] == "BNN (Theano), MNIST"
    assert row[-1] == "mnist.safetensors"
    assert not lines(block([run, other], of_conf), "Packed")


def test_what_was_not_run_has_no_line(of_conf):
    assert not lines(block([trained()], of_conf), "Times")


def test_the_committed_readme_has_three_tables_and_is_short():
    _, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    text, _, _ = rest.partition(END)
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "### Table 1: test error, %",
        "### Times: each workload on its fastest machine (the paper's Figure 3)",
        "### Packed networks of Table 1",
    ]
    assert len(lines(text, "Times")) <= len(figure3.HEADLINES)
    assert len(text.splitlines()) < 60


@pytest.mark.parametrize("baseline", [9000.0, 100.0])
def test_figure_3_is_the_same_in_its_table_its_drawing_and_the_readme(of_conf, baseline):
    kernels = PRODUCT | {"baseline:unoptimized": baseline}
    measured = timed(kernels=kernels)
    (kernel,) = (k for k in figure3.kernels(timed_runs(measured)) if k.as_the_papers)
    assert kernel.over_baseline.value == pytest.approx(baseline / 100)
    assert kernel.over_float32.value == pytest.approx(10)
    table = next(t for t in tables(measured, of_conf, []) if t.name == "figure3")
    (row,) = (row for row in table.rows if "float32 in" in row[1].text)
    assert row[4].value.value == kernel.over_baseline.value
    (drawing,) = (f for f in figures(measured) if f.name == "figure3")
    times = drawing.panels[0].series[1].y
    assert times[0] / times[2] == pytest.approx(kernel.over_baseline.value)
    assert times[1] / times[2] == pytest.approx(kernel.over_float32.value)
    (line,) = lines(block(measured, of_conf), "Times")
    assert line[4].startswith(row[4].text)


def test_signs_packed_apart_from_a_product_are_no_kernel_of_figure_3():
    """They have no rate: beside a product's time theirs would be a ratio of different work."""
    measured = on_gpu(PRODUCT | {"ours:pack_bits": 1.0})
    alone = [replace(r, details=r.details | {"gmac_per_s": None, "macs": 0.0})
             if r.details["variant"] == "pack_bits" else r for r in measured]  # fmt: skip
    names = {k.implementation.name for k in figure3.kernels(timed_runs(alone))}
    assert names == {"xnor, bits out", "xnor, float32 in, int32 out"}
