"""NumPy's float32 product in a process of its own, with the OpenBLAS kernels that are fastest here.

OpenBLAS picks its kernels by the processor's name when it is loaded, and on new ones picks old
kernels. The choice can be made for it by OPENBLAS_CORETYPE, but only before it is loaded: hence a
process (worker.py). The operands lie in files that both map.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnnrun.errors import RunError
from bnnrun.worker import SharedArray, Worker, shared, worker

# Kernels to try, "" being what OpenBLAS picks by itself; those of another processor cannot load.
X86 = ("", "Haswell", "SkylakeX", "Cooperlake", "SapphireRapids", "Zen")
TRIED, CALLS = 1024, 3  # side of the products that choose, and how many
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Product:
    """c = a · wᵀ of float32 matrices that processes share."""

    a: SharedArray
    w: SharedArray
    c: SharedArray

    @property
    def name(self) -> str:
        return "multiplies by NumPy"

    def open(self) -> dict[str, Callable[[], object]]:
        a, w, c = (array.open() for array in (self.a, self.w, self.c))
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]

        def multiply() -> str:
            np.matmul(a, w.T, out=c)
            return "done"

        return {"library": lambda: f"{blas['name']} {blas['version']}", "multiply": multiply}


@contextmanager
def fastest(
    operands: tuple[Floats, Floats], threads: int
) -> Iterator[tuple[Callable[[], object], Floats, str]]:
    """(c = a · wᵀ by the fastest kernels, c, which kernels) within the block."""
    a, w = operands
    side = [min(n, TRIED) for n in (len(a), len(w), a.shape[1])]
    with _product(a[: side[0], : side[2]], w[: side[1], : side[2]]) as small:
        core = min(X86, key=lambda name: _seconds(name, threads, small))
    with _product(a, w) as product, _worker(product, core, threads) as process:
        kernels = f"{process.ask('library')}, {core or 'its own choice of'} kernels"
        yield lambda: process.ask("multiply"), product.c.open(), kernels


@contextmanager
def _product(a: Floats, w: Floats) -> Iterator[Product]:
    with shared(a, w, np.empty((len(a), len(w)), np.float32)) as files:
        yield Product(*files)


@contextmanager
def _worker(product: Product, core: str, threads: int) -> Iterator[Worker]:
    environment = {"OPENBLAS_NUM_THREADS": str(threads)}
    if core:
        environment["OPENBLAS_CORETYPE"] = core
    with worker(product, environment) as process:
        yield process


def _seconds(core: str, threads: int, product: Product) -> float:
    """Time of some calls; infinite where the kernels do not run here."""
    try:
        with _worker(product, core, threads) as process:
            process.ask("multiply")
            began = time.perf_counter()
            for _ in range(CALLS):
                process.ask("multiply")
            return time.perf_counter() - began
    except RunError:
        return float("inf")
