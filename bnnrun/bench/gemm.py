"""A product of ±1 matrices, by XNOR and popcount and by everything else that is exact."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from bnnrun.bench import peers, roofline
from bnnrun.bench.measure import Competitor
from bnnrun.bench.openblas import fastest
from bnnrun.config import BenchConfig, BenchKernel
from bnnrun.errors import InputError
from bnnrun.gemm import cpu, reference, xnor
from bnnrun.gemm.bits import Words, aligned, pack, popcount_thresholds, unpack, words
from bnnrun.gemm.compiled import thread_count
from bnnrun.roles import YARDSTICK, Form, Implementation, Role

CHECKED = 16  # rows of the answer that are compared with the definition
BASELINE_MACS = 2e8  # of the rows that the unoptimized product computes
REFERENCE_MACS = 2e10  # above which the definition is not timed but asked for by name


@contextmanager
def competitors(config: BenchConfig) -> Iterator[list[Competitor]]:
    """The competitors of `workload=gemm`, on random ±1 sampled from the seed, within the block."""
    task = random_task(config)
    with ExitStack() as stack:
        entries: list[Competitor] = []
        if config.kernel in (BenchKernel.xnor, BenchKernel.peers, BenchKernel.all):
            entries += _xnor(task)
        if config.kernel in (BenchKernel.baseline, BenchKernel.all):
            entries.append(_baseline(task))
        small = task.macs <= REFERENCE_MACS and config.kernel is BenchKernel.all
        if config.kernel is BenchKernel.reference or small:
            call = partial(reference.multiply, task.a, task.w, task.k)
            implementation = Implementation.of(Role.peer, "reference")
            entries.append(Competitor(implementation, call, task.check(call), macs=task.macs))
        if config.kernel in (BenchKernel.peers, BenchKernel.all):
            entries += stack.enter_context(peers.products(task))
        a, w = (torch.from_numpy(part) for part in task.real)
        entries.append(_torch(YARDSTICK, task, a, w))
        if config.kernel in (BenchKernel.blas, BenchKernel.all):
            product, c, kernels = stack.enter_context(fastest(task.real, thread_count()))
            check = task.check(_then(product, c))
            implementation = Implementation.of(Role.float32, "numpy")
            entries.append(
                Competitor(implementation, product, check, macs=task.macs, remark=kernels)
            )
            implementation = Implementation.of(Role.low_precision, "bf16", Form.rounded)
            entries.append(_torch(implementation, task, a.bfloat16(), w.bfloat16()))
            if task.k % 8 == 0 and task.n % 8 == 0:
                entries.append(_int8(task))
        yield [*entries, *roofline.rooflines()]


def random_task(config: BenchConfig) -> "Task":
    """Random ±1 from the seed; InputError where memory is short for the float32 competitors."""
    m, n, k = config.m, config.n, config.k
    needed = 4 * (m * k + n * k + m * n) * 3
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(f"m={m} n={n} k={k}: the float32 competitors need about "
                         f"{needed / 2**30:.0f} GiB, {free / 2**30:.0f} are free")  # fmt: skip
    rng = np.random.default_rng(config.seed)
    return Task(_random_bits(rng, m, k), _random_bits(rng, n, k), k)


class Task:
    """Two matrices of ±1, and some rows of their product by definition.

    Attributes:
        a, w: bits, (M, words) and (N, words)
        real: the same as float32
        rows: of the answer, that are checked
    """

    def __init__(self, a: Words, w: Words, k: int) -> None:
        self.a, self.w, self.k = a, w, k
        self.m, self.n, self.macs = len(a), len(w), float(len(a) * len(w) * k)
        self.real = unpack(a, k).astype(np.float32), unpack(w, k).astype(np.float32)
        self.rows = np.unique(np.linspace(0, self.m - 1, CHECKED).astype(int))
        self.expected = reference.multiply(a[self.rows], w, k)

    def check(self, call: Callable[[], Any], *, rounded: bool = False) -> Callable[[], str | None]:
        """A check of the answer's first rows; `rounded` lets pass what bfloat16 makes of sums.

        A bfloat16 holds whole numbers to 256; of larger ones, 8 bits.
        """

        def compare() -> str | None:
            answer = call()
            rows = self.rows[self.rows < len(answer)]
            got, expected = np.asarray(answer[rows], np.float64), self.expected[: len(rows)]
            off = np.abs(got - expected) > (np.abs(expected) / 128 if rounded else 0)
            if not off.any():
                return None
            i, j = np.argwhere(off)[0]
            return f"row {rows[i]}, column {j}: {got[i, j]:g}, expected {expected[i, j]}"

        return compare


def _random_bits(rng: np.random.Generator, rows: int, k: int) -> Words:
    bits = rng.integers(0, 2**32, (rows, words(k)), dtype=np.uint32)
    if k % 32:
        bits[:, -1] &= np.uint32((1 << k % 32) - 1)
    return bits


def _then(call: Callable[[], object], out: NDArray[Any]) -> Callable[[], NDArray[Any]]:
    """`call`, and what it wrote to `out`: nothing of what an earlier call left there."""

    def called() -> NDArray[Any]:
        out.fill(-1)
        call()
        return out

    return called


def _xnor(task: Task) -> Iterator[Competitor]:
    """The products of a packed network's layers, and one with the packing of A in the time.

    Bits to bits as between two layers, and bits to sums as in the output layer.
    """
    m, n, k = task.m, task.n, task.k
    w = xnor.encode_weights(task.w)
    a, packed = xnor.empty_rows(m, w.row), xnor.empty_rows(m, w.row)
    a[:m, : words(k)] = task.a
    base, sums = np.full(w.width, k, np.int32), aligned((len(a), w.width), np.int32)
    thresholds = np.full(w.width, -1, np.int32)
    thresholds[:n] = popcount_thresholds(np.zeros(n, np.int32), k)
    bits = xnor.empty_rows(m, xnor.row_words(n))
    to_bits = partial(xnor.multiply_to_bits, a, m, w, thresholds, bits)
    to_sums = partial(xnor.multiply, a, m, w, base, sums)

    def packing() -> None:
        packed[:m, : words(k)] = pack(task.real[0])
        xnor.multiply(packed, m, w, base, sums)

    def compare_bits() -> str | None:
        to_bits()
        wrong = bits[task.rows, : words(n)] != pack(task.expected >= 0)
        return "a bit is not that of its sum" if wrong.any() else None

    of = partial(Implementation.of, Role.ours, "xnor")
    answer = sums[:m, :n]
    yield Competitor(of(Form.bits_out), to_bits, compare_bits, macs=task.macs)
    for form, call in ((Form.int32_out, to_sums), (Form.packing, packing)):
        yield Competitor(of(form), call, task.check(_then(call, answer)), macs=task.macs)


def _baseline(task: Task) -> Competitor:
    """Some rows only: all of a large product would take minutes."""
    a, w = task.real
    rows = max(1, min(task.m, int(BASELINE_MACS / (task.n * task.k))))
    out = np.empty((rows, task.n), np.float32)
    call = partial(cpu.baseline, a[:rows], w, out)
    return Competitor(
        Implementation.of(Role.baseline, "unoptimized"),
        call,
        task.check(_then(call, out)),
        macs=task.macs * rows / task.m,
        remark=f"{rows} rows",
    )


def _torch(
    implementation: Implementation, task: Task, a: torch.Tensor, w: torch.Tensor
) -> Competitor:
    out = torch.empty(len(a), len(w), dtype=a.dtype)
    call = partial(torch.mm, a, w.t(), out=out)
    check = task.check(lambda: call().float().numpy(), rounded=implementation.form is Form.rounded)
    return Competitor(implementation, call, check, macs=task.macs)


def _int8(task: Task) -> Competitor:
    a, w = (torch.from_numpy(part).to(torch.int8) for part in task.real)
    call = partial(torch._int_mm, a, w.t())
    implementation = Implementation.of(Role.low_precision, "int8")
    return Competitor(implementation, call, task.check(lambda: call().numpy()), macs=task.macs)
