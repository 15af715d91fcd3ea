"""Measuring: in turns, checked first; products and whole networks by everything that is exact."""

import math

import numpy as np
import pytest
from bench_runs import CONVNET, MLP, PRODUCT, SMALL, assert_not_timed, records, without_rooflines

from bnnrun import machine
from bnnrun.bench import measure as measure_module
from bnnrun.bench import network, peers
from bnnrun.bench.measure import Competitor, Timing, measure
from bnnrun.errors import RunError
from bnnrun.gemm import cpu, xnor
from bnnrun.roles import Implementation, Role
from bnnrun.runtime.network import PackedNetwork


class Clock:
    """A clock that moves only when something is called."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def competitor(self, name, seconds, wrong=None):
        def call():
            self.calls.append(name)
            self.now += seconds

        return Competitor(Implementation(Role.peer, name), call, lambda: wrong)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measure_module.time, "perf_counter", lambda: clock.now)
    return clock


def test_competitors_are_timed_in_turns(clock):
    timings = measure([clock.competitor("a", 1.0), clock.competitor("b", 2.0)], 4, 1e9)
    assert clock.calls == ["a", "a", "b", "b", "a", "b", "b", "a", "a", "b", "b", "a"]
    assert timings[Implementation(Role.peer, "a")].times_s == (1.0,) * 4
    assert timings[Implementation(Role.peer, "b")].median_s == 2.0


def test_a_short_call_comes_right_after_one_of_its_own(clock):
    timings = measure([clock.competitor("a", 0.01), clock.competitor("b", 2.0)], 3, 1e9)
    assert clock.calls[4:] == ["a", "a", "b", "b", "a", "a", "a", "a", "b"]
    assert timings[Implementation(Role.peer, "a")].count == 3


def test_no_round_is_begun_after_the_time_is_up_but_three_are_made(clock):
    timings = measure([clock.competitor("a", 10.0)], 100, seconds=35.0)
    assert timings[Implementation(Role.peer, "a")].count == 4
    timings = measure([clock.competitor("a", 10.0)], 100, seconds=1.0)
    assert timings[Implementation(Role.peer, "a")].count == 3


def test_a_wrong_answer_is_never_timed(clock):
    with pytest.raises(RunError, match="b: wrong answer, not timed: 2 is not 3"):
        measure([clock.competitor("a", 1.0), clock.competitor("b", 1.0, "2 is not 3")], 4, 1e9)
    assert clock.calls == []


def test_the_spread_is_the_interquartile_range_over_the_median():
    timing = Timing((1.0, 2.0, 3.0, 4.0, 5.0))
    assert timing.median_s == 3
    assert timing.minimum_s == 1
    assert math.isclose(timing.spread, (4 - 2) / 3)


NETWORK = {
    "xnor, first layer by bytes",
    "xnor, first layer by planes",
    "torch float32",
    "torch bf16, first layer float32",
    "torch int8, first layer float32",
}
XNOR = {"xnor, bits out", "xnor, int32 out", "xnor, float32 in, int32 out"}
COPY = "roofline: copying memory"


def libraries(names):
    """Those of other libraries, of which one is there where it is installed."""
    timed = {name for name in names if name.startswith(("NumKong", "OpenVINO", "ONNX Runtime"))}
    assert timed or "onnxruntime" in peers.absent()
    return timed


def key(record):
    return f"{record['details']['role']}:{record['details']['variant']}"


def assert_printed_and_rated(outcome, found, macs):
    """Each record is a row of the table, and its rates are those of its own time."""
    top = {n: r["details"]["gmac_per_s"] or 0 for n, r in found.items() if n.startswith("roofline")}
    loads = top.pop("roofline: loads of the tile", math.inf)
    top = min(loads, max(top.values()))
    assert COPY in found
    for name, r in found.items():
        assert f" {name} " in outcome.out
        assert r["unit"] == "ms"
        assert r["device"] == "cpu"
        details = r["details"]
        assert details["count"] == 3
        assert 0 < details["minimum"] <= r["value"]
        assert set(details["in_the_same_run"]) == {key(r) for r in found.values()}
        if name == COPY:
            assert details["gmac_per_s"] is details["share_of_limit"] is None
            continue
        rate = details["macs"] / r["value"] / 1e6
        assert math.isclose(details["gmac_per_s"], rate)
        assert math.isclose(details["share_of_limit"], rate / top)
        if not name.startswith("roofline"):
            assert details["macs"] == macs


def test_a_product_is_timed_by_everything_that_is_exact(bnnrun, tmp_path):
    outcome = bnnrun(*PRODUCT)
    assert outcome.status == 0, outcome.err
    found = records(tmp_path)
    others = {
        "baseline float32 (64 rows)",
        "reference",
        "torch float32",
        "torch bf16, sums rounded",
        "torch int8",
    }
    blas = {name for name in found if name.startswith("NumPy float32 (")}
    assert len(blas) == 1
    assert without_rooflines(found) == XNOR | others | blas | libraries(found)
    assert {r["quantity"] for r in found.values()} == {"gemm_time"}
    assert_printed_and_rated(outcome, found, 64 * 48 * 96)


@pytest.mark.parametrize(
    ("kernel", "names"),
    [("xnor", XNOR), ("baseline", {"baseline float32 (5 rows)"}), ("reference", {"reference"})],
    ids=["xnor", "baseline", "reference"],
)
def test_one_kernel_is_timed_beside_the_yardstick_and_the_rooflines(
    bnnrun, tmp_path, kernel, names
):
    outcome = bnnrun(*SMALL, "workload=gemm", "m=5", "n=7", "k=33", f"kernel={kernel}")
    assert outcome.status == 0, outcome.err
    found = records(tmp_path)
    assert without_rooflines(found) == names | {"torch float32"}
    assert_printed_and_rated(outcome, found, 5 * 7 * 33)


@pytest.mark.parametrize(
    ("words", "macs"),
    [
        pytest.param(MLP, 20 * (3 * 64 * 64 + 64 * 10), marks=pytest.mark.exhaustive),
        (CONVNET, 4 * ((27 * 8 + 72 * 8) * 32 * 32 + 8 * 16 * 16 * 16 + 16 * 10)),
    ],
    ids=["mlp", "convnet"],
)
def test_a_network_is_timed_packed_and_in_each_precision(bnnrun, tmp_path, words, macs):
    outcome = bnnrun(*SMALL, *words)
    assert outcome.status == 0, outcome.err
    found = records(tmp_path)
    images = words[-1].partition("=")[2]
    baseline = {f"baseline float32 ({images} images)"}
    assert without_rooflines(found) == NETWORK | baseline | libraries(found)
    workload = words[0].partition("=")[2]
    assert {r["quantity"] for r in found.values()} == {f"{workload}_time"}
    assert_printed_and_rated(outcome, found, macs)


@pytest.mark.parametrize(("allowed", "images"), [(1, 2), (2.4, 2), (3.1, 4), (1000, 20)])
def test_unoptimized_products_take_some_images_a_share_for_each_thread(
    bnnrun, tmp_path, monkeypatch, allowed, images
):
    each = 3 * 64 * 64 + 64 * 10
    monkeypatch.setattr(network, "BASELINE_MACS", allowed * each)
    outcome = bnnrun(*SMALL, *MLP, "kernel=baseline", "threads=2")
    assert outcome.status == 0, outcome.err
    found = records(tmp_path)
    name = f"baseline float32 ({images} images)"
    assert without_rooflines(found) == {name, "torch float32"}
    assert found[name]["details"]["macs"] == images * each
    assert found["torch float32"]["details"]["macs"] == 20 * each


def change_answers(monkeypatch, product, change):
    """Let `xnor.<product>` write what `change` makes of its answer's buffer."""
    inner = getattr(xnor, product)

    def changed(*arguments):
        inner(*arguments)
        change(arguments[4])

    monkeypatch.setattr(xnor, product, changed)


def test_a_product_that_is_one_off_is_not_timed(bnnrun, tmp_path, monkeypatch):
    change_answers(monkeypatch, "multiply", lambda s: np.add(s, 1, out=s))
    outcome = bnnrun(*PRODUCT, "kernel=xnor")
    assert_not_timed(outcome, tmp_path, "xnor, int32 out", "row 0, column 0")


def test_one_wrong_column_of_a_product_is_found(bnnrun, tmp_path, monkeypatch):
    change_answers(monkeypatch, "multiply", lambda s: np.subtract.at(s, (slice(None), 47), 2))
    outcome = bnnrun(*PRODUCT, "kernel=xnor")
    assert_not_timed(outcome, tmp_path, "xnor, int32 out", "row 0, column 47")


def test_an_answer_that_an_earlier_competitor_left_is_not_taken_for_ones_own(
    bnnrun, tmp_path, monkeypatch
):
    """The products with and without packing share a buffer; the second writes nothing."""
    inner, calls = xnor.multiply, []
    monkeypatch.setattr(xnor, "multiply", lambda *given: calls.append(given) or (
        inner(*given) if len(calls) == 1 else None
    ))  # fmt: skip
    outcome = bnnrun(*PRODUCT, "kernel=xnor")
    assert_not_timed(outcome, tmp_path, "xnor, float32 in, int32 out", "row 0, column 0")


def test_a_product_whose_bits_are_wrong_is_not_timed(bnnrun, tmp_path, monkeypatch):
    change_answers(monkeypatch, "multiply_to_bits", lambda bits: np.bitwise_xor(bits, 1, out=bits))
    outcome = bnnrun(*PRODUCT, "kernel=xnor")
    assert_not_timed(outcome, tmp_path, "xnor, bits out", "a bit")


@pytest.mark.parametrize("product", ["multiply", "multiply_to_bits"])
def test_a_network_runs_the_products_that_are_timed(bnnrun, tmp_path, monkeypatch, product):
    change_answers(monkeypatch, product, lambda answer: answer.fill(0))
    outcome = bnnrun(*SMALL, *MLP, "kernel=xnor")
    assert_not_timed(outcome, tmp_path, "xnor, first layer by bytes", "image")


def test_a_network_that_answers_otherwise_is_not_timed(bnnrun, tmp_path, monkeypatch):
    scores = PackedNetwork.scores
    monkeypatch.setattr(PackedNetwork, "scores", lambda *given: -scores(*given))
    outcome = bnnrun(*SMALL, *MLP)
    assert_not_timed(outcome, tmp_path, "xnor, first layer by bytes", "image 0: class")


@pytest.mark.parametrize("words", [MLP, CONVNET], ids=["mlp", "convnet"])
def test_unoptimized_products_that_are_wrong_are_not_timed(bnnrun, tmp_path, monkeypatch, words):
    baseline = cpu.baseline

    def negative(a, w, s):
        baseline(a, w, s)
        s *= -1

    monkeypatch.setattr(cpu, "baseline", negative)
    outcome = bnnrun(*SMALL, *words, "kernel=baseline")
    assert_not_timed(outcome, tmp_path, "baseline float32", "image 0: class")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("workload=convnet",), "add dataset=cifar10"),
        (("workload=mlp", "dataset=cifar10"), "add dataset=mnist"),
        (("workload=mlp", "binarization=none"), "binarization=deterministic"),
        ((*CONVNET, "binarization=none"), "binarization=deterministic"),
        ((*CONVNET, "dataset.preprocessing=zca"), "preprocessing=zca"),
        (("workload=gemm", "m=1048576", "n=1048576", "k=1048576"), "GiB"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else None,
)
def test_what_cannot_be_timed_is_refused_with_what_to_do(bnnrun, tmp_path, words, said):
    outcome = bnnrun(*SMALL, *words)
    assert outcome.status == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert not records(tmp_path)


def test_time_that_neighbours_took_is_told(bnnrun, tmp_path, monkeypatch):
    """Half a second of each of the processors' seconds, by a clock of a hypervisor's."""
    clock = iter([10.0, 10.0 + 1e6])
    monkeypatch.setattr(machine, "stolen_s", lambda: next(clock))
    outcome = bnnrun(*PRODUCT, "kernel=xnor")
    assert outcome.status == 0, outcome.err
    assert "a hypervisor took" in outcome.out
    assert all(r["details"]["stolen_pct"] > 1 for r in records(tmp_path).values())


def test_a_machine_that_does_not_tell_is_no_machine_without_neighbours(
    bnnrun, tmp_path, monkeypatch
):
    monkeypatch.setattr(machine, "stolen_s", lambda: None)
    outcome = bnnrun(*PRODUCT, "kernel=xnor")
    assert outcome.status == 0, outcome.err
    assert "a hypervisor took" not in outcome.out
    assert all(r["details"]["stolen_pct"] is None for r in records(tmp_path).values())
