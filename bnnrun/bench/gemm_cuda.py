"""A product of ±1 matrices on a GPU: every XNOR kernel it has, and cuBLAS in each precision."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from bnnrun.bench.gemm import YARDSTICK, Task, random_task
from bnnrun.bench.measure import Competitor
from bnnrun.config import BenchConfig, BenchKernel
from bnnrun.errors import InputError
from bnnrun.gemm import choice, cuda
from bnnrun.gemm.bits import pack
from bnnrun.gemm.cuda import Bits, Xnor
from bnnrun.gemm.cuda_device import Device, open_device

FLUSHED = 256 * 2**20  # bytes written before a cold call: past every second-level cache
# Multiply-accumulates of ±1 a clock and multiprocessor. Portable: 16 population counts, each of
# two words behind the carry-save adder. Tensor cores: the rate measured on 8.0; not published
# for 9.0.
RATES = {"xnor_gemm": 16 * 2 * 32, "xnor_gemm_mma": 16_384, "xnor_gemm_wgmma": 32_768}


def competitors(config: BenchConfig) -> list[Competitor]:
    """The competitors of `workload=gemm device=cuda`, timed by the device's events."""
    device = open_device()
    if config.kernel is BenchKernel.reference:
        raise InputError("kernel=reference device=cuda: the definition runs on the processor")
    task = random_task(config)
    found: list[Competitor] = []
    if config.kernel in (BenchKernel.xnor, BenchKernel.all):
        for name in choice.variants(device):
            found += _xnor(device, task, name)
    if config.kernel in (BenchKernel.baseline, BenchKernel.all):
        found.append(_baseline(device, task))
    every = config.kernel in (BenchKernel.blas, BenchKernel.all)
    return [*found, *_torch(device, task, every=every)]


def _xnor(device: Device, task: Task, name: str) -> Iterator[Competitor]:
    xnor, k = Xnor(device, name), task.k
    a, w = xnor.encode(task.a, k), xnor.encode(task.w, k)
    bits = xnor.room(task.m, task.n)
    limit = device.put(np.full(task.n, k >> 1, np.int32))  # s >= 0
    sums = device.empty((task.m, task.n), np.int32)
    floats = device.empty((task.m, task.n), np.float32)
    ones, zeros = (device.put(np.full(task.n, x, np.float32)) for x in (1, 0))
    real = device.put(task.real[0])
    multiprocessors, clock = device.peak()
    make = partial(_competitor, device, task, limit=multiprocessors * clock * RATES[name])

    def to_bits() -> Bits:
        return xnor.multiply_to_bits(a, w, limit, bits)

    def right_bits() -> str | None:
        words = device.get(to_bits().data)[task.rows, : pack(task.expected[:1]).shape[1]]
        return "a bit is not that of its sum" if (words != pack(task.expected >= 0)).any() else None

    yield make(f"{name}, bits out", to_bits, right_bits)
    yield make(f"{name}, bits out, cold", to_bits, right_bits, cold=True)
    yield make(f"{name}, int32 out", lambda: xnor.multiply(a, w, out=sums))
    yield make(
        f"{name}, float32 out",
        lambda: xnor.multiply(a, w, "float32", scale=ones, shift=zeros, out=floats),
    )
    yield make(
        f"{name}, float32 in, int32 out", lambda: xnor.multiply(xnor.pack(real), w, out=sums)
    )


def _baseline(device: Device, task: Task) -> Competitor:
    a, w = (device.put(part) for part in task.real)
    out = device.empty((task.m, task.n), np.float32)

    def call() -> Any:
        cuda.baseline(device, a, w, out)
        return out

    return _competitor(device, task, "baseline float32", call)


def _torch(device: Device, task: Task, *, every: bool) -> Iterator[Competitor]:
    """cuBLAS: float32 always, with TF32 off; the other precisions where they are asked for."""
    on = "cuda" if torch.cuda.is_available() else "cpu"
    a, w = (torch.from_numpy(part).to(on) for part in task.real)

    def make(name: str, call: Callable[[], torch.Tensor], *, rounded: bool = False) -> Competitor:
        def answer() -> Any:
            return call().float().cpu().numpy()

        return _competitor(device, task, name, call, task.check(answer, rounded=rounded))

    def product(x: torch.Tensor, y: torch.Tensor, *, tf32: bool = False) -> torch.Tensor:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        return x @ y.t()

    yield make(YARDSTICK, partial(product, a, w))
    if not every:
        return
    yield make("torch tf32", partial(product, a, w, tf32=True))
    bf16 = a.bfloat16(), w.bfloat16()
    yield make("torch bf16, sums rounded", partial(product, *bf16), rounded=True)
    if task.k % 8 == 0 and task.n % 8 == 0 and task.m > 16:
        int8 = a.to(torch.int8), w.to(torch.int8).t()
        yield make("torch int8", partial(torch._int_mm, *int8))
    if device.capability >= (8, 9) and task.k % 16 == 0 and task.n % 16 == 0:
        fp8 = a.to(torch.float8_e4m3fn), w.to(torch.float8_e4m3fn).t()
        one = torch.ones((), device=on)
        scaled = partial(torch._scaled_mm, *fp8, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
        yield make("torch fp8, sums rounded", scaled, rounded=True)


def _competitor(
    device: Device, task: Task, name: str, call: Callable[[], Any],
    check: Callable[[], str | None] | None = None, *, limit: float = 0.0, cold: bool = False,
) -> Competitor:  # fmt: skip
    """A competitor on the device; its answer, where no check is given, is the product itself."""
    flushed = device.empty((FLUSHED,), np.uint8) if cold else None

    def timed() -> float:
        if flushed is not None:
            device.clear(flushed)
        return device.seconds(call)

    return Competitor(
        name, call, check or task.check(lambda: device.get(call())), device.wait,
        macs=task.macs, limit=limit, timed=timed,
    )  # fmt: skip
