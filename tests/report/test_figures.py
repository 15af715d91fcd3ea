"""Figures: their data from fixed records, what is left out, and drawings that never change."""

import csv
import dataclasses
import hashlib
import io
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from made_records import read_data, timed, trained
from PIL import Image

from bnnrun import paper
from bnnrun.gemm.bits import pack
from bnnrun.records import Record
from bnnrun.report import plot
from bnnrun.report.content import Figure, Filters, Panel, Series
from bnnrun.report.figures import EXPECTED, absent, draw, figure_csv, figures
from bnnrun.report.filters import bits_of
from bnnrun.report.plot import COLOURS, DARK, GROUND
from bnnrun.report.speedup import crossover


def cifar10(epochs=500, **changes) -> Record:
    return trained("table1_cifar10_theano", 12.0, epochs=epochs, **changes)


def counted(epoch=9, first_layer=True, seed=0, created=0) -> Record:
    """What `bnnrun filters` records: two layers, and the first's bits."""
    bits = np.random.default_rng(seed).integers(0, 2, (20, 27)).astype(bool)
    words = pack(bits).astype("<u4").tobytes().hex()
    details = {
        "layers": {
            "conv1": {"unique_pct": 70.0, "by_chance_pct": 80.0},
            "conv2": {"unique_pct": 50.0, "by_chance_pct": 60.0},
        },
        "by_chance_pct": 60.0,
        "trained": {"dataset": "cifar10", "epoch": str(epoch)},
        "sha256": "0" * 64,
        "first_layer": {"outputs": 20, "channels": 3, "bits": words},
    }
    if not first_layer:
        del details["first_layer"]
    return trained(quantity="unique_filters", details=details, cell="", experiment="",
                   created=created)  # fmt: skip


def every_kind() -> list[Record]:
    """Records of every figure."""
    gpu = {"model": "A GPU", "memory_bytes": 2**30}
    on_gpu = {"ours:xnor_gemm/bits_out": 1.0, "ours:xnor_gemm/packing": 4.0,
              "float32:torch": 3.0, "low_precision:int8": 2.0}  # fmt: skip
    larger = {**on_gpu, "float32:torch": 40.0, "baseline:unoptimized": 90.0}
    network = {"ours:xnor/bytes": 600.0, "float32:torch": 6000.0}
    return [
        cifar10(),
        trained(epochs=20),
        trained("table1_svhn_theano", 9.0, epochs=3),
        trained("ablation_mnist", epochs=20, changed={"binarization__activation_bits": 2}),
        counted(),
        *timed(size=2048, kernels=on_gpu, gpu=gpu, device="cuda"),
        *timed(size=8192, kernels=larger, gpu=gpu, device="cuda"),
        *timed("mlp", size=10_000, kernels=network),
    ]


def figure(name: str, records: list[Record]) -> Figure:
    return next(f for f in figures(records) if f.name == name)


def rows(figure: Figure) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(figure_csv(figure))))


# ---- which figures there are -----------------------------------------------------------------


def test_without_records_there_is_no_figure_and_a_sentence_for_each():
    assert figures([]) == []
    assert absent([]) == list(EXPECTED.values())
    assert all("not run" in sentence for sentence in absent([]))


def test_with_records_of_every_kind_there_is_every_figure_the_papers_first():
    drawn = figures(every_kind())
    assert [f.name for f in drawn] == list(EXPECTED)
    assert absent(drawn) == []


def test_every_axis_has_a_label_with_its_unit_and_says_where_it_is_logarithmic():
    unit = re.compile(r"%|, s\b|bits|epoch|size|layer|hinge|times as fast")
    for each in figures(every_kind()):
        assert each.caption and each.title
        for panel in each.panels:
            named = [panel.x_label, panel.y_label] if not panel.bars else [panel.x_label]
            assert all(map(unit.search, named)), panel
            assert ("log scale" in panel.x_label) == panel.log_x
            assert ("log scale" in panel.y_label) == panel.log_y


# ---- Figure 1 --------------------------------------------------------------------------------


def test_figure_1_has_our_curves_beside_the_papers_points():
    record = cifar10()
    error, cost = figure("figure1", [record]).panels
    ours, *printed = error.series
    assert ours.label == "BNN (Theano), ours, 40 epochs"  # as many as made-up curves have
    assert ours.x == tuple(range(1, 41))
    assert ours.y == tuple(record.details["curve"]["valid_error_pct"])
    assert ours.records == (record.name,)
    assert not ours.dashed
    assert [s.label for s in printed] == [
        "no binarization, paper", "BNN (Torch7), paper", "BNN (Theano), paper"
    ]  # fmt: skip
    theano = printed[-1]
    assert (theano.group, theano.of_paper) == (ours.group, True)
    assert dict(zip(theano.x, theano.y, strict=True))[490] == pytest.approx((10.9 + 11.6) / 2)
    assert (theano.low[-1], theano.high[-1]) == (10.9, 11.6)
    assert all(s.dashed for s in cost.series)
    assert "no unit" in cost.paper_label and not error.paper_label


def test_a_run_far_shorter_than_the_papers_is_drawn_on_a_logarithmic_axis():
    assert figure("figure1", [cifar10(epochs=3)]).panels[0].log_x


def test_of_each_cell_the_longest_run_with_a_curve_is_drawn_the_latest_of_equals():
    short, long, later = cifar10(3), cifar10(20, created=1), cifar10(20, created=2, seed=1)
    without = cifar10(30, created=3)
    del without.details["curve"]
    single = cifar10(30, created=3)
    single.details["curve"] = {"train_loss": [1.0], "valid_error_pct": [1.0]}
    uneven = cifar10(30, created=4)
    uneven.details["curve"] = {"train_loss": [1.0, 0.5], "valid_error_pct": [9.0]}
    nameless = cifar10(30, created=5, data={})
    curves = figure("figure1", [short, long, later, without, single, uneven, nameless])
    assert curves.panels[0].series[0].records == (later.name,)


def test_what_a_reader_must_know_of_the_data_and_the_tree_is_in_the_caption():
    held_out = read_data("svhn", notes=["held out from train"])
    svhn = trained("table1_svhn_theano", 9.0, epochs=3, data=held_out,
                   source={"commit": "c0ffee", "clean": False})  # fmt: skip
    caption = figure("curves_svhn", [svhn]).caption
    assert "held out from train" in caption
    assert "changes that are in no commit" in caption


def test_runs_of_other_data_have_a_figure_of_their_own_and_own_settings_none():
    digits = trained("digits_binary", 2.0, epochs=20)
    own = trained(epochs=20, cell="", experiment="")
    (only,) = figures([digits, own])
    assert (only.name, only.title) == ("curves_digits", "Training on digits")
    assert [s.of_paper for panel in only.panels for s in panel.series] == [False, False]


# ---- times -----------------------------------------------------------------------------------


def test_figure_3_has_the_papers_bars_and_those_of_each_machine():
    product, network = figure("figure3", every_kind()).panels
    assert product.names == network.names == ("baseline", "float32", "XNOR")
    printed, gpu = product.series
    assert printed.y == (6.8, 0.98, 0.28) and printed.of_paper
    assert (gpu.label, gpu.x) == ("ours, A GPU", (0, 1, 2))
    assert gpu.y == pytest.approx([0.09, 0.04, 0.004])
    assert [s.y for s in network.series] == [(4.65, 1.1, 0.66), pytest.approx((6.0, 0.6))]
    assert network.series[1].x == (1, 2)  # no baseline was run


def test_of_a_machine_the_latest_timing_counts():
    early = {"ours:xnor/bytes": 900.0, "float32:torch": 9000.0}
    late = {"ours:xnor/bytes": 600.0, "float32:torch": 5000.0}
    measured = [*timed("mlp", size=10_000, kernels=early),
             *timed("mlp", size=10_000, kernels=late, created=1)]  # fmt: skip
    (network,) = figure("figure3", measured).panels
    assert network.series[1].y == pytest.approx((5.0, 0.6))


def test_a_smaller_network_or_product_is_not_figure_3():
    small = timed("mlp", size=100)
    narrow = timed("mlp", size=10_000)
    for record in narrow:
        record.config["arch"]["width"] = 512
    assert "figure3" not in {f.name for f in figures([*small, *narrow, *timed(size=4096)])}


def test_a_baseline_of_some_images_is_scaled_to_all():
    kernels = {"ours:xnor/bytes": 600.0, "baseline:unoptimized (5 images)": 5000.0}
    (panel,) = figure("figure3", timed("mlp", size=10_000, kernels=kernels)).panels
    ours = panel.series[1]
    assert dict(zip(ours.x, ours.y, strict=True)) == pytest.approx({0: 10.0, 2: 0.6})


def test_speed_up_is_over_float32_in_the_same_run():
    speedups = figure("speedup", every_kind())
    (panel,) = speedups.panels
    lines = {s.label: dict(zip(s.x, s.y, strict=True)) for s in panel.series}
    assert lines["XNOR, packing of A timed"] == pytest.approx({2048: 3 / 4, 8192: 40 / 4})
    assert set(lines) == {"XNOR, bits in and out", "XNOR, packing of A timed", "int8"}
    assert "faster than float32 from about" in speedups.caption


def test_products_that_are_no_cubes_or_lack_float32_have_no_speed_up():
    flat = timed()
    for record in flat:
        record.config["k"] = 1024
    alone = timed(kernels={"ours:xnor/bits_out": 1.0})
    assert "speedup" not in {f.name for f in figures([*flat, *alone])}


@pytest.mark.parametrize(
    ("speedups", "at", "words"),
    [
        ((2.0, 3.0, 4.0), None, "faster than float32 at every size measured, 100 to 400"),
        ((0.5, 0.5, 0.9), None, "not faster than float32 at the largest size measured, 400"),
        ((2.0, 0.5, 2.0), math.sqrt(200 * 400), "faster than float32 from about 283 on"),
        ((0.5, 2.0, 2.0), math.sqrt(100 * 200), "faster than float32 from about 141 on"),
    ],
)
def test_the_crossover_is_where_the_speed_up_stays_above_1(speedups, at, words):
    size, said = crossover((100, 200, 400), speedups)
    assert said == words
    assert size == (pytest.approx(at) if at else None)


# ---- filters ---------------------------------------------------------------------------------


def test_figure_2_is_drawn_from_the_record_alone():
    filters = figure("figure2", [counted(epoch=2, seed=1), counted(epoch=9)])
    bits = np.random.default_rng(0).integers(0, 2, (20, 27)).reshape(20, 3, 3, 3)
    np.testing.assert_array_equal(bits_of(filters.filters), bits)
    assert "epoch 9" in filters.caption
    second = list(rows(filters)[1].items())
    assert second[:2] == [("filter", "1"), ("map", "2")]
    signs = 2 * bits[0, :, :, 1].astype(int) - 1
    places = [(y, x) for y in range(3) for x in range(3)]
    assert second[2:] == [(f"w{y}{x}", str(signs[y, x])) for y, x in places]


def test_figure_2_is_of_cifar10_where_another_network_was_trained_longer():
    other = counted(epoch=22, created=1)
    other.details["trained"]["dataset"] = "svhn"
    other.details["sha256"] = "1" * 64
    assert "CIFAR-10, epoch 9" in figure("figure2", [counted(epoch=9), other]).caption
    assert "SVHN, epoch 22" in figure("figure2", [other]).caption


@pytest.mark.parametrize(
    "first_layer",
    [None, {}, {"outputs": 20, "channels": 3, "bits": "zz"}, {"outputs": 19, "channels": 3,
     "bits": "00000000" * 20}, {"outputs": 20, "channels": 3, "bits": 5}, "filters"],
)  # fmt: skip
def test_a_record_without_whole_bits_has_no_figure_2(first_layer):
    record = counted()
    record.details["first_layer"] = first_layer
    assert [f.name for f in figures([record])] == ["unique_filters"]


def test_older_records_have_no_figure_2_but_their_counts():
    drawn = figures([counted(first_layer=False)])
    assert [f.name for f in drawn] == ["unique_filters"]
    assert "Figure 2" in absent(drawn)[1]


def test_unique_filters_stand_beside_chance_and_the_papers_number():
    (panel,) = figure("unique_filters", [counted(2), counted(9)]).panels
    trained_, chance, printed = panel.series
    assert panel.names == ("conv1", "conv2")
    assert (trained_.label, trained_.y) == ("CIFAR-10, epoch 9", (70.0, 50.0))
    assert chance.y == (80.0, 60.0) and chance.dashed
    assert (printed.x, printed.y) == ((1.0,), (paper.UNIQUE_FILTERS.value,))


# ---- data as CSV -----------------------------------------------------------------------------


def test_the_data_of_a_figure_are_a_row_a_point():
    line = Series("ours", (1.0, 2.0), (1 / 3, 0.25), records=("a",))
    printed = Series("paper", (1.0,), (2.0,), low=(1.5,), high=(2.5,), of_paper=True)
    curves = Panel("panel", "epoch", "%", (line, printed), name="short", y_name="error_pct")
    bars = Panel("bars", "s", "", (Series("b", (1.0,), (3.0,)),), names=("x", "y"), bars=True,
                 y_name="time_s")  # fmt: skip
    assert figure_csv(Figure("name", "title", "caption", (curves, bars))) == (
        "panel,series,of_paper,x,error_pct,error_pct_low,error_pct_high,time_s\n"
        "short,ours,false,1,0.333333,,,\n"
        "short,ours,false,2,0.25,,,\n"
        "short,paper,true,1,2,1.5,2.5,\n"
        "bars,b,false,y,,,,3\n"
    )


def test_the_papers_numbers_of_another_scale_have_a_column_of_their_own():
    printed = Series("paper", (1.0,), (2.0,), of_paper=True)
    panel = Panel("", "epoch", "cost", (Series("ours", (1.0,), (0.5,)), printed),
                  paper_label="another", x_name="epoch", y_name="cost")  # fmt: skip
    assert figure_csv(Figure("name", "title", "caption", (panel,))) == (
        "series,of_paper,epoch,cost,paper_cost\nours,false,1,0.5,\npaper,true,1,,2\n"
    )


# ---- drawings --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED)
def test_a_drawing_is_the_same_bytes_twice_whatever_the_readers_settings(name):
    picture = figure(name, every_kind())
    first = draw(picture)
    plot.draw.cache_clear()
    with mpl.rc_context({"font.size": 20, "svg.fonttype": "path", "axes.grid": False}):
        assert draw(picture) == first


def test_a_drawing_is_the_same_bytes_in_another_process_place_and_time_zone(tmp_path):
    drawn = figures(every_kind())
    (tmp_path / "figures").write_bytes(pickle.dumps(drawn))
    code = (
        "import hashlib, pickle, pathlib, bnnrun.report.figures as r\n"
        "for f in pickle.loads(pathlib.Path('figures').read_bytes()):\n"
        "    for made in r.draw(f).values(): print(hashlib.sha256(made).hexdigest())"
    )
    environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2", "LC_ALL": "C",
                   "PYTHONPATH": str(Path(__file__).parents[2])}  # fmt: skip
    there = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment,
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    here = [hashlib.sha256(image).hexdigest() for f in drawn for image in draw(f).values()]
    assert there.split() == here


def test_a_drawing_is_xml_that_a_page_can_hold_among_others():
    seen: set[str] = set()
    for each in figures(every_kind()):
        svg = draw(each)["svg"].decode()
        root = ElementTree.fromstring(svg)
        assert root.get("aria-label") == each.title and root.get("role") == "img"
        ids = {e.get("id") for e in root.iter() if e.get("id")}
        assert not ids & seen, "two drawings of one page with the same identifier"
        seen |= ids
        links = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
        assert {a or b for a, b in links} <= ids
        assert not re.search(r"\d{4}-\d\d-\d\d|Matplotlib|<!DOCTYPE|<\?xml", svg)


def test_a_drawing_shows_its_labels_and_numbers_as_text():
    text = " ".join(ElementTree.fromstring(draw(figure("figure3", every_kind()))["svg"]).itertext())
    for shown in ("time, s (log scale)", "6.8", "0.28", "not run", "ours, A GPU", "XNOR"):
        assert shown in text


def test_a_picture_is_whole_on_white_and_as_wide_as_it_must_be():
    with Image.open(io.BytesIO(draw(figure("figure1", every_kind()))["png"])) as picture:
        picture.load()
        assert picture.width == 840
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert "Software" not in picture.info


def test_every_colour_has_one_for_the_dark_and_stands_out_on_its_ground():
    for light, dark in COLOURS.items():
        assert contrast(light, GROUND) >= 3 and contrast(dark, "#14161a") >= 3
    svg = draw(figure("figure1", every_kind()))["svg"].decode()
    used = set(re.findall(r"(?:stroke|fill): (#[0-9a-f]{6})", svg))
    assert used <= set(DARK), "a colour that stays as it is in the dark"


def contrast(one: str, other: str) -> float:
    """Of two colours, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_filters_of_one_input_map_are_drawn_in_grey():
    filters = Filters(2, 1, pack(np.ones((2, 9), bool)).astype("<u4").tobytes().hex())
    two_filters = dataclasses.replace(figure("figure2", every_kind()), filters=filters)
    with Image.open(io.BytesIO(draw(two_filters)["png"])) as picture:
        assert set(np.unique(np.asarray(picture))) == {128, 255}
