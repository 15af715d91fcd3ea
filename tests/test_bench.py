"""Measuring: in turns, checked first, and the competitor really the same network."""

import json
import math

import numpy as np
import pytest
import torch
from emulated_device import EmulatedDevice

from bnnrun import machine
from bnnrun.bench import gemm_cuda, network, workloads
from bnnrun.bench import measure as measure_module
from bnnrun.bench.eager import EagerStep
from bnnrun.bench.measure import Competitor, Timing, measure
from bnnrun.bench.step_process import StepProcess
from bnnrun.errors import RunError
from bnnrun.gemm import cpu, cuda, cuda_device, xnor
from bnnrun.nn import update
from bnnrun.runtime.network import PackedNetwork


class Clock:
    """A clock that moves only when something is called."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def competitor(self, name, seconds, wrong=None):
        def call():
            self.calls.append(name)
            self.now += seconds

        return Competitor(name, call, lambda: wrong)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measure_module.time, "perf_counter", lambda: clock.now)
    return clock


def test_competitors_are_timed_in_turns(clock):
    timings = measure([clock.competitor("a", 1.0), clock.competitor("b", 2.0)], 4, 1e9)
    assert clock.calls == ["a", "a", "b", "b", "a", "b", "b", "a", "a", "b", "b", "a"]
    assert timings["a"].times_s == (1.0,) * 4
    assert timings["b"].median_s == 2.0


def test_no_round_is_begun_after_the_time_is_up_but_three_are_made(clock):
    timings = measure([clock.competitor("a", 10.0)], 100, seconds=35.0)
    assert timings["a"].count == 4
    timings = measure([clock.competitor("a", 10.0)], 100, seconds=1.0)
    assert timings["a"].count == 3


def test_a_wrong_answer_is_never_timed(clock):
    with pytest.raises(RunError, match="b: wrong answer, not timed: 2 is not 3"):
        measure([clock.competitor("a", 1.0), clock.competitor("b", 1.0, "2 is not 3")], 4, 1e9)
    assert clock.calls == []


def test_the_spread_is_the_interquartile_range_over_the_median():
    timing = Timing((1.0, 2.0, 3.0, 4.0, 5.0))
    assert timing.median_s == 3
    assert timing.minimum_s == 1
    assert math.isclose(timing.spread, (4 - 2) / 3)


WORDS = ("bench", "workload=train_step", "dataset=digits", "arch.width=64", "rounds=3")


@pytest.mark.parametrize("binarization", ["deterministic", "none"])
def test_the_training_step_is_checked_timed_and_recorded(bnnrun, tmp_path, binarization):
    outcome = bnnrun(*WORDS, f"binarization={binarization}")
    assert outcome.status == 0, outcome.err
    found = [json.loads(p.read_text()) for p in (tmp_path / "results" / "runs").glob("*.json")]
    eager = {"eager float32", "eager float32, memory kept"}
    steps = {"bnnrun, fast", "bnnrun, float32", *eager}
    found = [r for r in found if not r["details"]["competitor"].startswith("limit")]
    assert {r["details"]["competitor"] for r in found} == steps
    for r in found:
        assert r["quantity"] == "train_step_time"
        assert r["unit"] == "ms"
        assert 0 < r["details"]["minimum"] <= r["value"]
        assert r["details"]["count"] == 3
        assert steps < r["details"]["in_the_same_run"].keys()
        assert r["details"]["memory_bytes"] > 1e6
    (row,) = (line for line in outcome.out.splitlines() if " bnnrun, fast " in line)
    of = found[0]["details"]["in_the_same_run"]
    assert row.split()[-1] == f"{of['eager float32'] / of['bnnrun, fast']:.2f}"
    parts = {r["details"]["competitor"]: r["details"].get("parts_ms") for r in found}
    for name in eager:
        assert parts[name] is None
    for name in steps - eager:
        assert parts[name]["update"] > 0
    floor = next(r["details"]["floor_ms"] for r in found if "floor_ms" in r["details"])
    assert 0 < sum(floor.values()) < sum(parts["bnnrun, fast"].values())


@pytest.mark.parametrize(
    "word", ["norm=shift", "binarization=stochastic", "binarization.gate=false", "optimizer=sgd"]
)
def test_what_the_competitor_does_not_have_is_refused(bnnrun, word):
    outcome = bnnrun(*WORDS, word)
    assert outcome.status == 2
    assert "the competitor has" in outcome.err


def test_a_step_that_computes_something_else_is_not_timed(bnnrun, tmp_path, monkeypatch):
    forward = EagerStep.forward

    def other(self, block, a):
        return forward(self, block, a.roll(1, 0))

    monkeypatch.setattr(EagerStep, "forward", other)
    outcome = bnnrun(*WORDS)
    assert outcome.status == 1
    assert "wrong answer, not timed" in outcome.err
    assert not list((tmp_path / "results" / "runs").glob("*.json"))


def test_a_process_that_computes_something_else_is_not_timed(bnnrun, tmp_path, monkeypatch):
    loss = StepProcess.loss
    monkeypatch.setattr(StepProcess, "loss", lambda self: 1.1 * loss(self))
    outcome = bnnrun(*WORDS)
    assert outcome.status == 1
    assert "the loss of its process is" in outcome.err
    assert not list((tmp_path / "results" / "runs").glob("*.json"))


def test_an_update_that_is_another_rule_is_not_timed(bnnrun, monkeypatch):
    def plain(self):
        with torch.no_grad():
            for p in self.network.parameters():
                p.sub_(p.grad, alpha=0.01)

    monkeypatch.setattr(EagerStep, "update", plain)
    outcome = bnnrun(*WORDS)
    assert outcome.status == 1
    assert "after an update" in outcome.err


@pytest.mark.skipif(not update.HAS_BYTES, reason="no products of bytes here")
def test_a_step_whose_own_update_is_wrong_is_not_timed(bnnrun, monkeypatch):
    """The step that is timed never has these gradients in memory."""
    fused = update.adam_by_bytes

    def other(w, m, v, q, scales, *more):
        fused(w, m, v, q, 1.1 * scales, *more)

    monkeypatch.setattr(update, "adam_by_bytes", other)
    outcome = bnnrun(*WORDS)
    assert outcome.status == 1
    assert "the gradient that moved" in outcome.err


SMALL = ("bench", "seconds=0.1", "rounds=3")
PRODUCT = (*SMALL, "workload=gemm", "m=64", "n=48", "k=96")
CONVNET = ("workload=convnet", "dataset=cifar10", "arch.channels=[8,8]", "arch.fc=[16]", "batch=4")
NETWORK = {
    "xnor, first layer by bytes",
    "xnor, first layer by planes",
    "torch float32",
    "torch bf16, first layer float32",
    "torch int8, first layer float32",
}
XNOR = {"xnor, bits out", "xnor, int32 out", "xnor, float32 in, int32 out"}
COPY = "limit: copying memory"


def records(folder):
    """The records of a run, by competitor."""
    found = [json.loads(p.read_text()) for p in (folder / "results" / "runs").glob("*.json")]
    return {r["details"]["competitor"]: r for r in found}


def without_limits(names):
    return {name for name in names if not name.startswith("limit")}


def assert_printed_and_rated(outcome, found, macs):
    """Each record is a row of the table, and its rates are those of its own time."""
    top = max(r["details"]["gmac_per_s"] or 0 for n, r in found.items() if n.startswith("limit"))
    assert COPY in found
    for name, r in found.items():
        assert f" {name} " in outcome.out
        assert r["unit"] == "ms"
        assert r["device"] == "cpu"
        details = r["details"]
        assert details["count"] == 3
        assert 0 < details["minimum"] <= r["value"]
        assert details["in_the_same_run"].keys() == found.keys()
        if name == COPY:
            assert details["gmac_per_s"] is details["share_of_limit"] is None
            continue
        rate = details["macs"] / r["value"] / 1e6
        assert math.isclose(details["gmac_per_s"], rate)
        assert math.isclose(details["share_of_limit"], rate / top)
        if not name.startswith("limit"):
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
    assert without_limits(found) == XNOR | others | blas
    assert {r["quantity"] for r in found.values()} == {"gemm_time"}
    assert_printed_and_rated(outcome, found, 64 * 48 * 96)


@pytest.mark.parametrize(
    ("kernel", "names"),
    [("xnor", XNOR), ("baseline", {"baseline float32 (5 rows)"}), ("reference", {"reference"})],
    ids=["xnor", "baseline", "reference"],
)
def test_one_kernel_is_timed_beside_the_yardstick_and_the_limits(bnnrun, tmp_path, kernel, names):
    outcome = bnnrun(*SMALL, "workload=gemm", "m=5", "n=7", "k=33", f"kernel={kernel}")
    assert outcome.status == 0, outcome.err
    found = records(tmp_path)
    assert without_limits(found) == names | {"torch float32"}
    assert_printed_and_rated(outcome, found, 5 * 7 * 33)


MLP = ("workload=mlp", "dataset=digits", "arch.width=64", "batch=20")


@pytest.mark.parametrize(
    ("words", "macs"),
    [
        (MLP, 20 * (3 * 64 * 64 + 64 * 10)),
        (CONVNET, 4 * ((27 * 8 + 72 * 8) * 32 * 32 + 8 * 16 * 16 * 16 + 16 * 10)),
    ],
    ids=["mlp", "convnet"],
)
def test_a_network_is_timed_packed_and_in_each_precision(bnnrun, tmp_path, words, macs):
    outcome = bnnrun(*SMALL, *words)
    assert outcome.status == 0, outcome.err
    found = records(tmp_path)
    images = words[-1].partition("=")[2]
    assert without_limits(found) == NETWORK | {f"baseline float32 ({images} images)"}
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
    assert without_limits(found) == {name, "torch float32"}
    assert found[name]["details"]["macs"] == images * each
    assert found["torch float32"]["details"]["macs"] == 20 * each


def assert_not_timed(outcome, folder, *said):
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    for words in ("wrong answer, not timed", *said):
        assert words in outcome.err
    assert not records(folder)


def test_a_product_that_is_one_off_is_not_timed(bnnrun, tmp_path, monkeypatch):
    multiply = xnor.multiply
    monkeypatch.setattr(xnor, "multiply", lambda *given: multiply(*given) + 1)
    outcome = bnnrun(*PRODUCT, "kernel=xnor")
    assert_not_timed(outcome, tmp_path, "xnor, int32 out", "row 0, column 0")


def test_one_wrong_column_of_a_product_is_found(bnnrun, tmp_path, monkeypatch):
    multiply = xnor.multiply

    def last_column_off(*given):
        s = multiply(*given)
        s[:, -1] -= 2
        return s

    monkeypatch.setattr(xnor, "multiply", last_column_off)
    outcome = bnnrun(*PRODUCT, "kernel=xnor")
    assert_not_timed(outcome, tmp_path, "xnor, int32 out", "row 0, column 47")


def test_a_product_whose_bits_are_wrong_is_not_timed(bnnrun, tmp_path, monkeypatch):
    multiply = xnor.multiply_to_bits
    monkeypatch.setattr(xnor, "multiply_to_bits", lambda *given: multiply(*given) ^ 1)
    outcome = bnnrun(*PRODUCT, "kernel=xnor")
    assert_not_timed(outcome, tmp_path, "xnor, bits out", "a bit")


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


@pytest.mark.parametrize("capability", [(7, 5), (9, 0)], ids=["portable", "mma"])
def test_a_product_is_timed_on_a_gpu(bnnrun, tmp_path, monkeypatch, capability):
    """With the kernels on the processor, and PyTorch there in the place of cuBLAS."""
    emulate(monkeypatch, capability)
    outcome = bnnrun(*SMALL, "workload=gemm", "m=24", "n=16", "k=96", "device=cuda")
    assert outcome.status == 0, outcome.err
    found = records(tmp_path)
    ways = ("bits out", "bits out, cold", "int32 out", "float32 out", "float32 in, int32 out")
    names = list(cuda.VARIANTS) if capability == (9, 0) else ["xnor_gemm"]
    torch_s = {"torch float32", "torch tf32", "torch bf16, sums rounded", "torch int8"}
    expected = {f"{name}, {way}" for name in names for way in ways} | {"baseline float32"} | torch_s
    packing = found.pop("pack_bits, float32 in")["details"]
    assert packing["gmac_per_s"] is packing["share_of_limit"] is None
    assert found.keys() - {"torch fp8, sums rounded"} == expected
    # Multiply-accumulates a clock and multiprocessor.
    rates = {"xnor_gemm": 1024}
    if capability == (9, 0):
        rates |= {"xnor_gemm_mma": 16_384, "xnor_gemm_wgmma": 32_768, "baseline float32": 128,
                  "torch float32": 128, "torch tf32": 1024, "torch bf16": 2048,
                  "torch int8": 4096, "torch fp8": 4096}  # fmt: skip
    for name, r in found.items():
        details = r["details"]
        assert details["gmac_per_s"] == pytest.approx(24 * 16 * 96 / r["value"] / 1e6)
        rate = rates.get(name.partition(",")[0])
        share = details["gmac_per_s"] / (2 * rate) if rate else None  # two of them, at 1 GHz
        assert details["share_of_limit"] == (share and pytest.approx(share))


class Stopwatch:
    """A device whose calls take as long as they say."""

    def __init__(self):
        self.now, self.log, self.recorded = 0.0, [], 0

    def empty(self, shape, dtype):
        return "cache"

    def clear(self, array):
        self.log.append("clear")

    def record(self, work):
        self.recorded += 1
        return work

    def seconds(self, work, before=None):
        if before is not None:
            before()
        began = self.now
        work()
        return self.now - began

    def call(self, seconds):
        def work():
            self.log.append("call")
            self.now += seconds

        return work


def test_short_calls_are_timed_in_a_row_behind_others():
    device = Stopwatch()
    timed = gemm_cuda._Timed(device, device.call(0.3e-3))
    assert timed() == pytest.approx(0.3e-3)
    assert device.log == ["call"] * (1 + 3 + 3)
    device.log.clear()
    timed()
    assert device.log == ["call"] * 6
    assert device.recorded == 1


def test_the_shortest_calls_are_not_timed_without_end():
    device = Stopwatch()
    assert gemm_cuda._Timed(device, device.call(0.0))() == 0.0
    assert len(device.log) == 1 + 2 * gemm_cuda.MOST_CALLS


def test_a_cold_call_is_timed_alone_behind_what_empties_the_cache():
    device = Stopwatch()
    timed = gemm_cuda._Timed(device, device.call(0.1e-3), cold=True)
    assert timed() == pytest.approx(0.1e-3)
    assert device.log == ["call", "clear", "call"]


def test_a_long_call_is_timed_alone():
    device = Stopwatch()
    timed = gemm_cuda._Timed(device, device.call(0.5), graph=False)
    assert timed() == 0.5
    assert device.log == ["call"] * 2
    assert device.recorded == 0


def test_a_network_is_timed_on_a_gpu(bnnrun, tmp_path, monkeypatch):
    emulate(monkeypatch, (9, 0))
    words = ("workload=mlp", "dataset=digits", "arch.width=40", "batch=20", "device=cuda")
    outcome = bnnrun(*SMALL, *words, "kernel=xnor")
    assert outcome.status == 0, outcome.err
    ways = {f"{k}, first layer by {f}" for k in cuda.VARIANTS
            for f in ("bytes", "planes")}  # fmt: skip
    assert records(tmp_path).keys() == ways | {"torch float32"}


@pytest.mark.parametrize("words", [MLP, CONVNET], ids=["mlp", "convnet"])
def test_unoptimized_products_of_a_gpu_take_every_image(bnnrun, tmp_path, monkeypatch, words):
    device = emulate(monkeypatch, (9, 0))
    outcome = bnnrun(*SMALL, *words, "kernel=baseline", "device=cuda")
    assert outcome.status == 0, outcome.err
    found = records(tmp_path)
    assert found.keys() == {"baseline float32", "torch float32"}
    assert len({r["details"]["macs"] for r in found.values()}) == 1
    calls, layers = 1 + 2 + 3, 4  # checked, warmed up, timed
    assert [launch.kernel for launch in device.launches] == ["baseline_gemm"] * layers * calls


@pytest.mark.parametrize(("side", "sizes"), [(28, [1000, 500]), (64, [250] * 6)])
def test_larger_images_are_taken_fewer_at_once(side, sizes):
    taken = []

    def scores(x):
        taken.append(len(x))
        return x[:, 0, 0, :1].float()

    x = torch.arange(1500, dtype=torch.int16)[:, None, None, None].expand(-1, 3, side, side)
    np.testing.assert_array_equal(network._in_parts(scores, x)[:, 0], np.arange(1500))
    assert taken == sizes


def test_a_wrong_bit_of_a_gpu_is_not_timed(bnnrun, tmp_path, monkeypatch):
    emulate(monkeypatch, (7, 5))
    multiply = cuda.Xnor.multiply_to_bits

    def one_off(self, a, w, limit, out):
        multiply(self, a, w, limit, out)
        out.data[0, 0] ^= 1
        return out

    monkeypatch.setattr(cuda.Xnor, "multiply_to_bits", one_off)
    outcome = bnnrun(*SMALL, "workload=gemm", "m=24", "n=16", "k=96", "device=cuda")
    assert_not_timed(outcome, tmp_path, "xnor_gemm, bits out", "a bit")


def test_without_a_gpu_one_line_says_what_is_missing(bnnrun, monkeypatch):
    monkeypatch.setattr(cuda_device, "missing", lambda: "no GPU: no driver")
    monkeypatch.setattr(workloads, "select_device", lambda *_: torch.device("cpu"))
    for words in (("workload=gemm", "m=8"), ("workload=mlp", "dataset=digits")):
        outcome = bnnrun("bench", *words, "device=cuda")
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert "device=cuda: no GPU: no driver" in outcome.err


def emulate(monkeypatch, capability):
    device = EmulatedDevice(capability)
    monkeypatch.setattr(cuda_device, "missing", lambda: None)
    monkeypatch.setattr(cuda_device, "CudaDevice", lambda: device)
    monkeypatch.setattr(gemm_cuda, "FLUSHED", 1024)
    monkeypatch.setattr(workloads, "select_device", lambda *_: torch.device("cpu"))
    return device
