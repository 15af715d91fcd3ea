"""NumPy's float32 product in a process of its own, with the OpenBLAS kernels that are fastest here.

OpenBLAS picks its kernels by the processor's name when it is loaded, and on new ones picks old
kernels. The choice can be made for it by OPENBLAS_CORETYPE, but only before it is loaded: hence a
process. The operands lie in files that both map.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnnrun.errors import RunError

# Kernels to try, "" being what OpenBLAS picks by itself; those of another processor cannot load.
X86 = ("", "Haswell", "SkylakeX", "Cooperlake", "SapphireRapids", "Zen")
TRIED, CALLS = 1024, 3  # side of the products that choose, and how many
Floats = NDArray[np.float32]

WORKER = """
import sys
import numpy as np
files = [word.rsplit(":", 2) for word in sys.argv[1:]]
a, w, c = (np.memmap(f, np.float32, "r+", shape=(int(m), int(n))) for f, m, n in files)
blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
print(blas["name"], blas["version"], flush=True)
for line in sys.stdin:
    np.matmul(a, w.T, out=c)
    print("done", flush=True)
"""


class Product:
    """c = a · wᵀ in another process.

    Attributes:
        name: library, version and kernels
    """

    def __init__(self, core: str, threads: int, shared: list[Floats]) -> None:
        words = [f"{each.filename}:{each.shape[0]}:{each.shape[1]}" for each in shared]  # type: ignore[attr-defined]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads)}
        if core:
            environment["OPENBLAS_CORETYPE"] = core
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            encoding="utf-8", env=environment,
        )  # fmt: skip
        self.name = f"{self._line().strip()}, {core or 'its own choice of'} kernels"

    def __call__(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RunError("NumPy's product ended in its process; `bench kernel=xnor` needs memory "
                           "for three float32 matrices")  # fmt: skip
        return line

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def fastest(operands: tuple[Floats, Floats], threads: int) -> Iterator[tuple[Product, Floats]]:
    """(c = a · wᵀ by the fastest kernels, c) within the block."""
    a, w = operands
    side = [min(n, TRIED) for n in (len(a), len(w), a.shape[1])]
    with _shared(a[: side[0], : side[2]], w[: side[1], : side[2]]) as small:
        core = min(X86, key=lambda name: _seconds(name, threads, small))
    with _shared(a, w) as operands_and_product:
        product = Product(core, threads, operands_and_product)
        try:
            yield product, operands_and_product[2]
        finally:
            product.close()


def _seconds(core: str, threads: int, shared: list[Floats]) -> float:
    """Time of some calls; infinite where the kernels do not run here."""
    try:
        product = Product(core, threads, shared)
    except RunError:
        return float("inf")
    try:
        product()
        began = time.perf_counter()
        for _ in range(CALLS):
            product()
        return time.perf_counter() - began
    except RunError:
        return float("inf")
    finally:
        product.close()


@contextmanager
def _shared(a: Floats, w: Floats) -> Iterator[list[Floats]]:
    """[a, w, room for the product] as files that another process can map, in memory if possible."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        views: list[Floats] = []
        for i, shape in enumerate((a.shape, w.shape, (len(a), len(w)))):
            views.append(np.memmap(Path(folder) / str(i), np.float32, "w+", shape=shape))
        views[0][...], views[1][...] = a, w
        yield views
