"""More bits: which networks stand beside each other, their bytes, their times, others' numbers."""

import csv
import io
from dataclasses import replace

import pytest
from made_records import timed, trained

from bnnrun.report import standing, workload
from bnnrun.report.bits import bits_of
from bnnrun.report.content import Cell
from bnnrun.report.figures import draw, figure_csv, figures
from bnnrun.report.published import PUBLISHED, SOURCES
from bnnrun.report.tables import tables

# Rows are padded to words: 784 bits take 25, 1024 take 32.
WEIGHT_BYTES = 4 * (1024 * 25 + 2 * 1024 * 32 + 10 * 32)
FLOAT32_BYTES = 4 * (784 * 1024 + 2 * 1024 * 1024 + 1024 * 10)
REAL = {"binarization__weights": "none", "binarization__activations": "none"}


def run(
    weights=1,
    activations=1,
    value=1.0,
    seed=0,
    *,
    experiment="ablation_mnist",
    epochs=20,
    **changed,
):
    """A run of the experiment with as many bits."""
    bits = {"binarization__weight_bits": weights, "binarization__activation_bits": activations}
    return trained(experiment, value, seed, epochs, changed=bits | changed)


def table_of(measured, of_conf, name="more_bits"):
    return next((t for t in tables(measured, of_conf, []) if t.name == name), None)


def lines(measured, of_conf) -> list[dict[str, Cell]]:
    """Our rows of the table, as dicts of cells."""
    table = table_of(measured, of_conf)
    titles = [column.title for column in table.columns]
    rows = [dict(zip(titles, row, strict=True)) for row in table.rows]
    return [row for row in rows if "published" not in row["network"].text]


def sweep() -> list:
    return [
        *(run(1, 2, 1.5 + 0.1 * seed, seed) for seed in range(3)),
        run(2, 2, 1.2),
        run(value=2.0),
        run(value=0.8, **REAL),
        run(value=0.9, binarization__activations="none"),
        run(8, 8, 1.1),
    ]


def test_there_is_a_row_for_each_number_of_bits_the_fewest_first(of_conf):
    rows = lines(sweep(), of_conf)
    shown = [(row["bits, W x A"].text, row["test error %"].text, row["n"].text) for row in rows]
    assert shown == [
        ("1 x 1", "2.00", "1"),
        ("1 x 2", "1.60 ± 0.10", "3"),
        ("1 x 32", "0.90", "1"),
        ("2 x 2", "1.20", "1"),
        ("8 x 8", "1.10", "1"),
        ("32 x 32", "0.80", "1"),
    ]
    assert {row["network"].text for row in rows} == {"mlp 3 x 1024"}
    assert all(row["test error %"].records for row in rows)


def test_bytes_are_of_the_weights_bits(of_conf):
    counts = {row["bits, W x A"].text: row["bytes of weights"].value.value
              for row in lines(sweep(), of_conf)}  # fmt: skip
    assert counts == {
        "1 x 1": WEIGHT_BYTES, "1 x 2": WEIGHT_BYTES, "1 x 32": WEIGHT_BYTES,
        "2 x 2": 2 * WEIGHT_BYTES, "8 x 8": 8 * WEIGHT_BYTES, "32 x 32": FLOAT32_BYTES,
    }  # fmt: skip


def test_bits_of_each_layer_are_told_where_they_differ(of_conf):
    (row,) = lines([run([1, 2, 2, 1], [2, 2, 2])], of_conf)
    assert row["bits, W x A"].text == "1-2-2-1 x 2"
    own = 4 * (1024 * 25 + 2 * 2 * 1024 * 32 + 10 * 32)
    assert row["bytes of weights"].value.value == own


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 5},
        {"arch__width": 512},
        {"optimizer__clip": "none"},
        {"binarization__estimator": "identity"},
        {"binarization__activations": "stochastic"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_network_that_differs_in_more_than_its_bits_is_not_beside_it(other, of_conf):
    assert len(lines([run(1, 2), run(value=2.0)], of_conf)) == 2
    assert len(lines([run(1, 2), run(value=2.0, **other)], of_conf)) == 1


def test_a_run_is_known_by_its_settings_not_by_its_name(of_conf):
    """And what changed nothing but bits is no ablation of the experiment."""
    measured = [replace(run(1, 2), experiment=""), run(value=2.0, experiment="ablation_mnist")]
    assert len(lines(measured, of_conf)) == 2
    assert table_of(measured, of_conf, "ablations") is None
    assert table_of(measured, of_conf, "other_runs") is None


def test_runs_of_one_bit_alone_are_no_table_and_no_figure(of_conf):
    measured = [run(value=2.0), run(value=0.8, **REAL)]
    assert table_of(measured, of_conf) is None
    assert "more_bits" not in {figure.name for figure in figures(measured, of_conf)}


def networks_time(bits, ms, model, images=500, variant="xnor/bytes"):
    """A time of a packed network of the sweep's shape; float32 takes 100 ms in the same run."""
    kernels = {f"ours:{variant}": ms, "float32:torch": 100.0}
    made, _ = timed("mlp", kernels=kernels, size=images, gpu=None, cpu={"model": model})
    trained_as = run(*bits).config
    names = ("arch", "dataset", "binarization")
    config = made.config | {name: trained_as[name] for name in names}
    return replace(made, config=config)


def times_of(measured, of_conf):
    titles = ("ms for 1,000 images", "times torch float32", "timed on")
    return {
        row["bits, W x A"].text: tuple(row[title].text for title in titles)
        for row in lines(measured, of_conf)
    }


def test_times_are_of_the_machine_that_timed_most_numbers_of_bits(of_conf):
    timings = [
        networks_time((1, 1), 4.0, "this"),
        networks_time((1, 1), 3.0, "this", variant="xnor/planes"),
        networks_time((1, 1), 2.0, "that"),
        networks_time((1, 2), 9.0, "this"),
        networks_time((1, 2), 80.0, "this"),
        networks_time((1, 2), 5.0, "this", images=1),
    ]
    absent = ("not packed", "", "")
    assert times_of([*sweep(), *timings], of_conf) == {
        "1 x 1": ("6.0", "33.3", "this, 2 threads"),
        "1 x 2": ("160", "1.2", "this, 2 threads"),
        "2 x 2": ("not run", "", ""),
        "1 x 32": absent, "8 x 8": absent, "32 x 32": absent,
    }  # fmt: skip
    later = networks_time((2, 2), 1.0, "that")
    later_times = times_of([*sweep(), *timings, later], of_conf)
    assert later_times["1 x 1"] == ("4.0", "50.0", "that, 2 threads")
    assert later_times["2 x 2"] == ("2.0", "100.0", "that, 2 threads")


def test_a_time_of_another_network_is_not_of_this_table(of_conf):
    right = networks_time((1, 1), 4.0, "this")
    others = [
        replace(right, quantity="train_step_time"),
        replace(right, details=right.details | {"role": "float32", "variant": "torch"}),
        replace(right, config=right.config | {"arch": right.config["arch"] | {"width": 8}}),
        replace(right, config=right.config | {"dataset": {"name": "digits"}}),
    ]
    assert times_of([*sweep(), right], of_conf)["1 x 1"][0] == "8.0"
    for other in others:
        assert times_of([*sweep(), other], of_conf)["1 x 1"][0] == "not run"


def test_times_of_other_bits_stand_beside_each_other(of_conf):
    one, two = (networks_time(bits, 4.0, "this") for bits in ((1, 1), (1, 2)))
    assert standing.newest([one, two]) == [one, two]
    assert workload.work(two).network == "mlp 3 x 1024, 1 x 2 bits"
    assert workload.work(one).network == "mlp 3 x 1024"


def test_published_numbers_of_the_same_data_stand_below_with_their_levels(of_conf):
    table = table_of([run(1, 2)], of_conf)
    published = [row for row in table.rows if "published" in row[1].text]
    assert len(published) == sum(one.dataset == "mnist" for one in PUBLISHED)
    (lfc,) = [row for row in published if "LFC" in row[1].text and row[2].text == "1 x 2"]
    assert lfc[3].text == "1.01" and not lfc[3].records
    notes = " ".join(table.notes)
    assert "-1, 0, 1" in notes and "DoReFa" not in notes


def test_each_published_number_has_a_source():
    assert {one.by for one in PUBLISHED} == set(SOURCES)
    assert all(0 < one.low <= one.high < 100 for one in PUBLISHED)


@pytest.mark.parametrize(
    "config", [{}, {"binarization": {}}, {"binarization": {"weights": "sign"}}], ids=str
)
def test_a_record_that_does_not_tell_has_no_bits(config):
    assert bits_of(config) is None


def test_the_figure_has_a_panel_a_network_and_a_point_a_number_of_bits(of_conf):
    cifar10 = [run(1, 2, 30.0, experiment="bits_cifar10", epochs=5),
               run(1, 1, 35.0, experiment="bits_cifar10", epochs=5)]  # fmt: skip
    measured = [*sweep(), *cifar10, run([1, 2, 2, 1], 2)]
    (figure,) = [f for f in figures(measured, of_conf) if f.name == "more_bits"]
    assert [panel.title for panel in figure.panels] == [
        "CIFAR-10, convnet 128-128-256-256-512-512", "MNIST, mlp 3 x 1024",
    ]  # fmt: skip
    points = list(csv.DictReader(io.StringIO(figure_csv(figure))))
    shown = {(p["bits"], float(p["error_pct"])) for p in points if "MNIST" in p["panel"]}
    assert {("1 x 1", 2.0), ("1 x 2", 1.6), ("2 x 2", 1.2), ("32 x 32", 0.8)} < shown
    assert not any("-" in p["bits"] for p in points)
    assert all(float(p["error_pct_low"]) <= float(p["error_pct"]) for p in points)
    assert set(draw(figure)) == {"png", "svg"}
