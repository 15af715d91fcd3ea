"""A product of ±1 matrices on a GPU: every XNOR kernel it has, and cuBLAS in each precision."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from bnnrun.bench.gemm import Task, random_task
from bnnrun.bench.measure import Competitor
from bnnrun.config import BenchConfig, BenchKernel
from bnnrun.errors import InputError
from bnnrun.gemm import cuda, dispatch
from bnnrun.gemm.bits import pack
from bnnrun.gemm.cuda import Bits, Xnor
from bnnrun.gemm.cuda_device import Device, open_device
from bnnrun.roles import PACK_BITS, YARDSTICK, Form, Implementation, Role

FLUSHED = 256 * 2**20  # bytes written before a cold call: past every second-level cache
TIMED_S = 1e-3  # of calls in a row that are timed together
MOST_CALLS = 100
LONG_S = 0.02  # of a call beside which launching it is nothing

# Multiply-accumulates of ±1 a clock and multiprocessor, by compute capability; what is not known
# is left out. Those of xnor_gemm: 16 population counts, each of two words after the carry-save
# adder. Of bits on tensor cores: as measured on 8.x by others; 9.0 by `mma` is taken to be 8.0.
PORTABLE = 16 * 2 * 32
RATES: dict[tuple[int, int], dict[str, int]] = {
    (8, 0): {"float32": 64, "tf32": 512, "bf16": 1024, "int8": 2048, "xnor_gemm_mma": 16_384},
    (8, 6): {"float32": 128, "xnor_gemm_mma": 8192},
    (8, 9): {"float32": 128, "xnor_gemm_mma": 8192},
    (9, 0): {
        "float32": 128, "tf32": 1024, "bf16": 2048, "int8": 4096, "fp8": 4096,
        "xnor_gemm_mma": 16_384, "xnor_gemm_wgmma": 32_768,
    },
}  # fmt: skip


def competitors(config: BenchConfig) -> list[Competitor]:
    """The competitors of `workload=gemm device=cuda`, timed by the device's events."""
    device = open_device()
    if config.kernel is BenchKernel.reference:
        raise InputError("kernel=reference device=cuda: the definition runs on the processor")
    task = random_task(config)
    entries: list[Competitor] = []
    if config.kernel in (BenchKernel.xnor, BenchKernel.all):
        entries.append(_packing(device, task))
        for name in dispatch.variants(device):
            entries += _xnor(device, task, name)
    if config.kernel in (BenchKernel.baseline, BenchKernel.all):
        entries.append(_baseline(device, task))
    every = config.kernel in (BenchKernel.blas, BenchKernel.all)
    return [*entries, *_torch(device, task, every=every)]


def _packing(device: Device, task: Task) -> Competitor:
    """Signs of A as bits, apart from any product."""
    xnor, real = Xnor(device), device.put(task.real[0])
    buffer = xnor.empty_bits(task.m, task.k)

    def right() -> str | None:
        words = device.get(xnor.pack(real, out=buffer).data)[:, : task.a.shape[1]]
        return "a bit is not that of its number" if (words != task.a).any() else None

    call = partial(xnor.pack, real, out=buffer)
    return Competitor(PACK_BITS, call, right, device.wait, timed=_Timed(device, call))


def _xnor(device: Device, task: Task, name: str) -> Iterator[Competitor]:
    """Between two layers, bits to bits, with operands in the second-level cache and without."""
    xnor, k = Xnor(device, name), task.k
    a, w = xnor.encode(task.a, k), xnor.encode(task.w, k)
    bits, packed = xnor.empty_bits(task.m, task.n), xnor.empty_bits(task.m, k)
    limit = device.put(np.full(task.n, k >> 1, np.int32))  # s >= 0
    sums = device.empty((task.m, task.n), np.int32)
    floats = device.empty((task.m, task.n), np.float32)
    ones, zeros = (device.put(np.full(task.n, x, np.float32)) for x in (1, 0))
    real = device.put(task.real[0])

    def make(form: Form, *call: Callable[[], Any], cold: bool = False) -> Competitor:
        implementation = Implementation.of(Role.ours, name, form)
        return _competitor(device, task, implementation, *call, rate=name, cold=cold)

    def to_bits() -> Bits:
        return xnor.multiply_to_bits(a, w, limit, bits)

    def right_bits() -> str | None:
        words = device.get(to_bits().data)[task.rows, : pack(task.expected[:1]).shape[1]]
        return "a bit is not that of its sum" if (words != pack(task.expected >= 0)).any() else None

    yield make(Form.bits_out, to_bits, right_bits)
    yield make(Form.bits_out_cold, to_bits, right_bits, cold=True)
    yield make(Form.int32_out, lambda: xnor.multiply(a, w, out=sums))
    yield make(
        Form.float32_out,
        lambda: xnor.multiply(a, w, "float32", scale=ones, shift=zeros, out=floats),
    )
    yield make(
        Form.packing,
        lambda: xnor.multiply(xnor.pack(real, out=packed), w, out=sums),
    )


def _baseline(device: Device, task: Task) -> Competitor:
    a, w = (device.put(part) for part in task.real)
    out = device.empty((task.m, task.n), np.float32)

    def call() -> Any:
        cuda.baseline(device, a, w, out)
        return out

    implementation = Implementation.of(Role.baseline, "unoptimized")
    return _competitor(device, task, implementation, call, rate="float32")


def _torch(device: Device, task: Task, *, every: bool) -> Iterator[Competitor]:
    """cuBLAS: float32 always, with TF32 off; the other precisions where they are asked for."""
    on = "cuda" if torch.cuda.is_available() else "cpu"
    a, w = (torch.from_numpy(part).to(on) for part in task.real)

    def make(implementation: Implementation, call: Callable[[], torch.Tensor]) -> Competitor:
        def answer() -> Any:
            return call().float().cpu().numpy()

        check = task.check(answer, rounded=implementation.form is Form.rounded)
        rate = "float32" if implementation.role is Role.float32 else implementation.method
        return _competitor(device, task, implementation, call, check, rate=rate, graph=False)

    def product(x: torch.Tensor, y: torch.Tensor, *, tf32: bool = False) -> torch.Tensor:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        return x @ y.t()

    yield make(YARDSTICK, partial(product, a, w))
    if not every:
        return
    low = partial(Implementation.of, Role.low_precision)
    yield make(low("tf32"), partial(product, a, w, tf32=True))
    yield make(low("bf16", Form.rounded), partial(product, a.bfloat16(), w.bfloat16()))
    if task.k % 8 == 0 and task.n % 8 == 0 and task.m > 16:
        int8 = a.to(torch.int8), w.to(torch.int8).t()
        yield make(low("int8"), partial(torch._int_mm, *int8))
    if device.capability >= (8, 9) and task.k % 16 == 0 and task.n % 16 == 0:
        fp8 = a.to(torch.float8_e4m3fn), w.to(torch.float8_e4m3fn).t()
        one = torch.ones((), device=on)
        scaled = partial(torch._scaled_mm, *fp8, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
        yield make(low("fp8", Form.rounded), scaled)


def _competitor(
    device: Device, task: Task, implementation: Implementation, call: Callable[[], Any],
    check: Callable[[], str | None] | None = None, *, rate: str, cold: bool = False,
    graph: bool = True,
) -> Competitor:  # fmt: skip
    """A competitor on the device, `rate` a key of RATES; its answer, where no check is given, is
    the product itself.
    """
    multiprocessors, clock = device.peak()
    macs = PORTABLE if rate == "xnor_gemm" else RATES.get(device.capability, {}).get(rate, 0)
    return Competitor(
        implementation, call, check or task.check(lambda: device.get(call())), device.wait,
        macs=task.macs, roofline=multiprocessors * clock * macs,
        timed=_Timed(device, call, cold=cold, graph=graph),
    )  # fmt: skip


class _Timed:
    """Seconds of one call by the device's clock, free of what launching costs the processor.

    Warm, several calls in a row are timed, and the first finds the device at work already; those
    of our kernels are one graph. Cold, what empties the cache keeps the device at work until the
    one call is there.
    """

    def __init__(
        self, device: Device, call: Callable[[], Any], *, cold: bool = False, graph: bool = True
    ) -> None:
        self.device, self.call, self.graph = device, call, graph
        self.flushed = device.empty((FLUSHED,), np.uint8) if cold else None
        self.calls = 0  # in a row; 0: not known yet

    def __call__(self) -> float:
        if not self.calls:
            self._prepare()
        return self.device.seconds(self.run, self.before) / self.calls

    def _prepare(self) -> None:
        once_s = self.device.seconds(self.call)
        many = int(TIMED_S / max(once_s, TIMED_S / MOST_CALLS))
        self.calls = 1 if self.flushed is not None else max(1, many)
        run = self.device.record(self._in_a_row) if self.graph else self._in_a_row
        self.run: Callable[[], None] = run
        self.before: Callable[[], None] | None = run if once_s < LONG_S else None
        if self.flushed is not None:
            self.before = partial(self.device.clear, self.flushed)

    def _in_a_row(self) -> None:
        for _ in range(self.calls):
            self.call()
