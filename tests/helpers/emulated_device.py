"""A device as gemm/cuda_device.py has it, that runs the kernels on the processor."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import emulated
import numpy as np
from numpy.typing import DTypeLike, NDArray

from bnnrun.gemm.cuda_device import Launch


class EmulatedDevice:
    """Holds NumPy arrays and launches what g++ made of the kernels.

    Attributes:
        launches: all so far
    """

    cache: Path | None = None

    def __init__(self, capability: tuple[int, int]) -> None:
        self.capability = capability
        self.launches: list[Launch] = []

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Poisoned: what a kernel leaves out is seen."""
        array = np.empty(shape, dtype)
        array.view(np.uint8)[...] = 0xA5
        return array

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return np.zeros(shape, dtype)

    def put(self, array: NDArray[Any], out: Any = None) -> NDArray[Any]:
        if out is None:
            return np.ascontiguousarray(array).copy()
        out[...] = array
        return out

    def get(self, array: Any) -> NDArray[Any]:
        return array.copy()

    def owns(self, array: Any) -> bool:
        return isinstance(array, np.ndarray)

    def clear(self, array: Any) -> None:
        array.fill(0)

    def launch(self, launch: Launch) -> None:
        self.launches.append(launch)
        defines = {name: "" if value is None else value for name, value in launch.defines}
        block = launch.block if isinstance(launch.block, tuple) else (launch.block,)
        kernel = emulated.kernel(launch.kernel, **defines)
        kernel(launch.grid, block, tuple(map(_argument, launch.arguments)), launch.shared_bytes)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return work

    def wait(self) -> None:
        pass

    def seconds(
        self, work: Callable[[], object], before: Callable[[], object] | None = None
    ) -> float:
        if before is not None:
            before()
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def peak(self) -> tuple[int, float]:
        return 2, 1e9

    def describe(self) -> dict[str, Any]:
        return {"model": "emulated", "compute_capability": ".".join(map(str, self.capability))}


def _argument(argument: Any) -> Any:
    """A tensor's memory, in whatever order it lies."""
    if not hasattr(argument, "data_ptr"):
        return argument
    return argument.as_strided((argument.numel(),), (1,)).numpy()
