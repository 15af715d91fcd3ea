"""`bench device=cuda`, by kernels on the processor; and the clock that times them."""

import numpy as np
import pytest
import torch
from bench_runs import CONVNET, MLP, SMALL, assert_not_timed, emulate, records

from bnnrun.bench import gemm_cuda, measure, network, workloads
from bnnrun.gemm import cuda, cuda_device


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
    monkeypatch.setattr(measure, "SHORT_S", 0.0)  # each call is counted
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
    monkeypatch.setattr(workloads, "torch_device", lambda *_: torch.device("cpu"))
    for words in (("workload=gemm", "m=8"), ("workload=mlp", "dataset=digits")):
        outcome = bnnrun("bench", *words, "device=cuda")
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert "device=cuda: no GPU: no driver" in outcome.err
