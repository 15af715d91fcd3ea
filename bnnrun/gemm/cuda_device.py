"""A CUDA device by CuPy, imported here alone: arrays, compilation and launches of kernels.

cuda.py defines the launches.
"""

import functools
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bnnrun.errors import InputError
from bnnrun.files import private_folder, user_path
from bnnrun.machine import nvidia_driver

HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Launch:
    """A kernel launch.

    Attributes:
        kernel:    name of kernels/KERNEL.cu and of its entry point
        defines:   -D options: {name: value}, None for a name alone
        arguments: device arrays, PyTorch's tensors there, NumPy scalars of the kernel's own types,
                   or None
    """

    kernel: str
    defines: tuple[tuple[str, int | str | None], ...]
    grid: tuple[int, int]
    block: int | tuple[int, int]
    arguments: tuple[Any, ...]
    shared_bytes: int = 0


class Device(Protocol):
    """Holds arrays and runs launches; arrays have `dtype`, `shape` and `flags` as in NumPy."""

    capability: tuple[int, int]
    cache: Path | None  # folder of the kernels' trial verdicts; None: not stored

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any: ...
    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any: ...
    def put(self, array: NDArray[Any], out: Any = None) -> Any:
        """Copy an array to the device, into `out` if it is not None."""

    def get(self, array: Any) -> NDArray[Any]:
        """Copy an array to the host."""

    def owns(self, array: Any) -> bool:
        """Whether an array lies on this device."""

    def clear(self, array: Any) -> None:
        """Set every element to 0."""

    def launch(self, launch: Launch) -> None: ...

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture the launches of `work`; the function returned replays them on the same memory."""

    def describe(self) -> dict[str, Any]:
        """Model, memory and versions: for records, and all that a compiled kernel depends on."""

    def wait(self) -> None:
        """Block until the device is idle."""

    def seconds(
        self, work: Callable[[], object], before: Callable[[], object] | None = None
    ) -> float:
        """Time of `work` by the device's clock; `before` keeps it busy during the launches."""

    def peak(self) -> tuple[int, float]:
        """(number of multiprocessors, peak clock rate in Hz)."""


def import_cupy() -> ModuleType:
    """Import CuPy, with a cache folder that can be written to: it fails without one."""
    place = _cache_folder()
    with suppress(OSError):
        place.mkdir(parents=True, exist_ok=True)
    if not os.access(place, os.W_OK):
        folder = private_folder()
        os.environ["CUPY_CACHE_DIR"] = str(folder or Path.cwd().anchor)
        if folder is None:
            os.environ["CUPY_CACHE_IN_MEMORY"] = "1"
    import cupy

    module: ModuleType = cupy
    return module


def missing() -> str | None:
    """Why this process cannot use a GPU, in one line; None if it can."""
    try:
        cupy = import_cupy()
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            return "no GPU: CuPy is not installed; pip install cupy-cuda13x (or cupy-cuda12x)"
        return f"no GPU: CuPy cannot be imported: {error}"
    except ImportError as error:
        return f"no GPU: CuPy cannot be imported: {error}"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no GPU: {error}"
    return None if count else "no GPU: CUDA sees no device"


def open_device() -> Device:
    """Open the GPU; InputError if there is none."""
    if (why := missing()) is not None:
        raise InputError(f"device=cuda: {why}")
    return CudaDevice()


@functools.cache
def source(kernel: str) -> str:
    """The text of kernels/KERNEL.cu: beside the package in a checkout, inside it in a wheel."""
    for folder in (HERE.parent / "kernels", HERE / "kernels"):
        path = folder / f"{kernel}.cu"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"kernels/{kernel}.cu: not found beside the package nor inside it")


def options(defines: Sequence[tuple[str, int | str | None]]) -> tuple[str, ...]:
    """The -D options of a compiler for `defines`, (name, value) each."""
    return tuple(f"-D{name}" if value is None else f"-D{name}={value}" for name, value in defines)


class CudaDevice:
    """A CUDA device by CuPy.

    Work runs on PyTorch's current stream if PyTorch has initialized CUDA, else on CuPy's, so that
    tensors and kernels are synchronized.
    """

    def __init__(self, index: int = 0) -> None:
        self.cupy, self.index = import_cupy(), index
        self.device = self.cupy.cuda.Device(index)
        digits = self.device.compute_capability
        self.capability = int(digits[:-1]), int(digits[-1])
        self.cache: Path | None = _cache_folder()
        self._kernels: dict[tuple[str, tuple[str, ...]], Any] = {}

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        with self.device:
            return self.cupy.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        with self.device, self._stream():
            return self.cupy.zeros(shape, dtype)

    def put(self, array: NDArray[Any], out: Any = None) -> Any:
        with self.device, self._stream():
            if out is None:
                return self.cupy.asarray(array)
            out.set(array)
            return out

    def get(self, array: Any) -> NDArray[Any]:
        with self.device, self._stream() as stream:
            host: NDArray[Any] = self.cupy.asnumpy(array, stream=stream)
            return host

    def owns(self, array: Any) -> bool:
        return isinstance(array, self.cupy.ndarray) and array.device.id == self.index

    def clear(self, array: Any) -> None:
        with self.device, self._stream():
            array.fill(0)

    def launch(self, launch: Launch) -> None:
        arguments = tuple(map(_argument, launch.arguments))
        block = launch.block if isinstance(launch.block, tuple) else (launch.block,)
        with self.device, self._stream():
            kernel = self._kernel(launch)
            kernel(launch.grid, block, arguments, shared_mem=launch.shared_bytes)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        work()  # compiles; nothing may be compiled or allocated while a graph is recorded
        stream = self.cupy.cuda.Stream(non_blocking=True)
        with self.device, stream:
            stream.begin_capture()
            work()
            graph = stream.end_capture()

        def replay() -> None:
            with self.device, self._stream() as current:
                graph.launch(current)

        return replay

    def describe(self) -> dict[str, Any]:
        properties = self.cupy.cuda.runtime.getDeviceProperties(self.index)
        version = self.cupy.cuda.runtime.runtimeGetVersion()
        return {
            "model": properties["name"].decode(),
            "memory_bytes": properties["totalGlobalMem"],
            "compute_capability": ".".join(map(str, self.capability)),
            "multiprocessors": properties["multiProcessorCount"],
            "cuda": f"{version // 1000}.{version % 1000 // 10}",
            "nvrtc": ".".join(map(str, self.cupy.cuda.nvrtc.getVersion())),
            "driver": nvidia_driver(),
        }

    def wait(self) -> None:
        self.device.synchronize()

    def seconds(
        self, work: Callable[[], object], before: Callable[[], object] | None = None
    ) -> float:
        start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        with self.device, self._stream() as stream:
            if before is not None:
                before()
            start.record(stream)
            work()
            end.record(stream)
            end.synchronize()
        return float(self.cupy.cuda.get_elapsed_time(start, end)) / 1e3

    def peak(self) -> tuple[int, float]:
        attributes = self.device.attributes
        return attributes["MultiProcessorCount"], 1e3 * attributes["ClockRate"]

    def _stream(self) -> AbstractContextManager[Any]:
        import sys

        torch = sys.modules.get("torch")
        recording = self.cupy.cuda.get_current_stream()
        if torch is None or not torch.cuda.is_initialized() or recording.ptr != 0:
            return nullcontext(recording)
        current = torch.cuda.current_stream(self.index).cuda_stream
        stream: AbstractContextManager[Any] = self.cupy.cuda.ExternalStream(current)
        return stream

    def _kernel(self, launch: Launch) -> Any:
        major, minor = self.capability
        # sm_90a has instructions that sm_90, CuPy's default, lacks.
        arch = ("-arch=sm_90a",) if (major, minor) == (9, 0) else ()
        key = launch.kernel, (*options(launch.defines), "-std=c++17", *arch)
        if key not in self._kernels:
            kernel = self.cupy.RawKernel(source(launch.kernel), launch.kernel, key[1])
            if launch.shared_bytes > 48 * 1024:
                kernel.max_dynamic_shared_size_bytes = launch.shared_bytes
            self._kernels[key] = kernel
        return self._kernels[key]


def _argument(argument: Any) -> Any:
    """An argument as CuPy takes it; a tensor is passed by its address."""
    if argument is None:
        return np.uintp(0)
    return np.uintp(argument.data_ptr()) if hasattr(argument, "data_ptr") else argument


def _cache_folder() -> Path:
    """Where CuPy keeps machine code, by its own settings."""
    return user_path(os.environ.get("CUPY_CACHE_DIR", "~/.cupy/kernel_cache"))
