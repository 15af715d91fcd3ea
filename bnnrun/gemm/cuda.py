"""The product of ±1 matrices held as bits, on an NVIDIA GPU: which kernel, and how it is launched.

Kernels are `kernels/*.cu`. What is here decides, checks and allocates; a `Device` compiles and
launches. RawKernel looks at neither types nor strides, so every operand is checked before.
"""

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bnnrun.gemm.bits import Words, words
from bnnrun.machine import nvidia_driver

HERE = Path(__file__).resolve().parents[1]
UNIT = 4  # words: rows of bits are whole pieces of 16 bytes
OFFSETS = 2**31 - 1  # words that xnor_conv can address
GRID_Y = 65_535  # CUDA's most blocks in the second direction
TILE_ROWS, TILE_COLUMNS = 128, 64  # of xnor_gemm
MMA_TILE, MMA_STAGES, MMA_STAGE_BYTES = 128, 3, 32_768
CONV_TILE = 64  # rows of xnor_conv and first_layer

OUTPUTS = {"int32": np.int32, "int16": np.int16, "float32": np.float32}


@dataclass(frozen=True)
class Launch:
    """A kernel and all that a launch of it takes.

    Attributes:
        kernel:    of kernels/KERNEL.cu, and its entry point
        defines:   -D options: {name: value}, None for a name alone
        arguments: device arrays, NumPy scalars of the kernel's own types, or None
    """

    kernel: str
    defines: tuple[tuple[str, int | str | None], ...]
    grid: tuple[int, int]
    block: int | tuple[int, int]
    arguments: tuple[Any, ...]
    shared_bytes: int = 0


class Device(Protocol):
    """What runs launches and holds arrays; arrays have `dtype`, `shape`, `flags` as NumPy's."""

    capability: tuple[int, int]

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any: ...
    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any: ...
    def put(self, array: NDArray[Any], out: Any = None) -> Any:
        """A copy on the device, in `out` where it is given."""

    def get(self, array: Any) -> NDArray[Any]:
        """A copy on the host."""

    def owns(self, array: Any) -> bool:
        """Whether an array lies on this device."""

    def clear(self, array: Any) -> None:
        """Every element 0."""

    def launch(self, launch: Launch) -> None: ...

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """The launches of `work`, to be run again and again on the same memory."""

    def describe(self) -> dict[str, Any]:
        """Model, memory and versions, for a record."""

    def wait(self) -> None:
        """Returns when the device is idle."""

    def seconds(self, work: Callable[[], object]) -> float:
        """What `work` takes, by the device's own clock."""

    def peak(self) -> tuple[int, float]:
        """(multiprocessors, clocks a second at most)."""


@dataclass(frozen=True)
class Bits:
    """A matrix of ±1 on a device.

    Attributes:
        data: (R, KW) uint32, KW a multiple of UNIT; what is past K is 0
        ones: (R,) int32, the 1 bits of each row
        k:    elements of a row
    """

    data: Any
    ones: Any
    k: int

    @property
    def rows(self) -> int:
        return int(self.data.shape[0])

    @property
    def kw(self) -> int:
        return int(self.data.shape[1])


def missing() -> str | None:
    """What keeps this process from using a GPU, in one line; None where nothing does."""
    try:
        import cupy
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


def row_words(k: int) -> int:
    """Words of a row of `k` bits on a device."""
    return -(-words(k) // UNIT) * UNIT


def variants(capability: tuple[int, int]) -> tuple[str, ...]:
    """The kernels that a compute capability has."""
    fastest = variant(capability)
    return ("xnor_gemm",) if fastest == "xnor_gemm" else ("xnor_gemm", fastest)


def variant(capability: tuple[int, int]) -> str:
    """The fastest kernel of a compute capability.

    Binary tensor cores take `.and.popc` from 8.0 to 9.0; later ones emulate it on others.
    """
    return "xnor_gemm_mma" if (8, 0) <= capability < (10, 0) else "xnor_gemm"


class Xnor:
    """Products of ±1 matrices on one device.

    Args:
        kernel: "auto", "xnor_gemm" or "xnor_gemm_mma"

    Raises:
        ValueError: a kernel that the device does not have; operands, by every method, that are
                    not those of one product
    """

    def __init__(self, device: Device, kernel: str = "auto") -> None:
        self.device = device
        self.kernel = variant(device.capability) if kernel == "auto" else kernel
        if self.kernel not in {"xnor_gemm", "xnor_gemm_mma"}:
            raise ValueError(f"kernel {kernel}: expected auto, xnor_gemm or xnor_gemm_mma")
        if self.kernel == "xnor_gemm_mma" and variant(device.capability) != self.kernel:
            has = ".".join(map(str, device.capability))
            raise ValueError(f"kernel {kernel}: for compute capability 8.0 to 9.0, this is {has}")

    def encode(self, rows: Words, k: int) -> Bits:
        """(R, words) uint32 of the host, as `bits.pack` makes them."""
        data = np.zeros((len(rows), row_words(k)), np.uint32)
        data[:, : rows.shape[1]] = rows
        ones = np.bitwise_count(data).sum(axis=1, dtype=np.int32)
        return Bits(self.device.put(data), self.device.put(ones), k)

    def pack(self, x: Any, transposed: bool = False) -> Bits:
        """Signs of a device array as bits: x >= 0, or of uint8 and bool not 0.

        Shapes:
            x: (R, K) float32, int32, uint8 or bool; (K, R) if `transposed`
        """
        kinds = {"float32": "FLOAT32", "int32": "INT32", "uint8": "UINT8", "bool": "UINT8"}
        kind = kinds.get(np.dtype(x.dtype).name)
        if kind is None or len(x.shape) != 2:
            raise ValueError(f"x is {x.dtype} {x.shape}: expected two dimensions of "
                             f"{', '.join(kinds)}")  # fmt: skip
        self._check("x", x, x.dtype)
        r, k = x.shape[::-1] if transposed else x.shape
        kw = row_words(k)
        data = self.device.empty((r, kw), np.uint32)
        ones = self.device.zeros((r,), np.int32)
        if r and kw:
            self.device.launch(
                Launch(
                    kernel="pack_bits",
                    defines=(("IN", kind), *((("TRANSPOSED", None),) if transposed else ())),
                    grid=(-(-r // 128), kw // UNIT) if transposed else (-(-r // 8), 1),
                    block=128 if transposed else 256,
                    arguments=(x, data, ones, *map(np.int32, (r, k, kw))),
                )
            )
        return Bits(data, ones, int(k))

    def multiply(
        self,
        a: Bits,
        w: Bits,
        kind: str = "int32",
        scale: Any = None,
        shift: Any = None,
        out: Any = None,
    ) -> Any:
        """s = A · Wᵀ, (M, N) int32 or int16; as float32 s · scale[n] + shift[n]."""
        self._check_operands(a, w)
        if kind not in OUTPUTS:
            raise ValueError(f"kind {kind}: expected one of {', '.join(OUTPUTS)}")
        if kind == "int16" and a.k > np.iinfo(np.int16).max:
            raise ValueError(f"K is {a.k}: its sums do not fit int16")
        if (kind == "float32") != (scale is not None and shift is not None):
            raise ValueError("scale and shift belong to float32, and it needs both")
        if kind == "float32":
            self._check("scale", scale, np.float32, (w.rows,))
            self._check("shift", shift, np.float32, (w.rows,))
        if out is None:
            out = self.device.empty((a.rows, w.rows), OUTPUTS[kind])
        self._check("out", out, OUTPUTS[kind], (a.rows, w.rows))
        if out.size:
            self.device.launch(self._product(kind, a, w, out, None, None, scale, shift, 0))
        return out

    def multiply_to_bits(self, a: Bits, w: Bits, limit: Any, out: Bits | None = None) -> Bits:
        """Bits popc(a ^ w) <= limit[n], that is s >= K - 2 · limit[n].

        Args:
            limit: (N,) int32
            out:   from `room`, all of it overwritten; new where it is not given
        """
        self._check_operands(a, w)
        self._check("limit", limit, np.int32, (w.rows,))
        out = self.room(a.rows, w.rows) if out is None else out
        self._check("out", out.data, np.uint32, (a.rows, row_words(w.rows)))
        self._check("ones of out", out.ones, np.int32, (a.rows,))
        if a.rows:
            self.device.clear(out.ones)
            self.device.launch(
                self._product("BITS", a, w, out.data, out.ones, limit, None, None, out.kw)
            )
        return out

    def room(self, rows: int, k: int) -> Bits:
        """Memory for a matrix of bits."""
        data = self.device.zeros((rows, row_words(k)), np.uint32)
        return Bits(data, self.device.zeros((rows,), np.int32), k)

    def _product(
        self, kind: str, a: Bits, w: Bits, out: Any, ones: Any, limit: Any, scale: Any,
        shift: Any, cw: int,
    ) -> Launch:  # fmt: skip
        m, n = a.rows, w.rows
        columns = 32 * cw if kind == "BITS" else n
        sizes = map(np.int32, (m, n, a.k, a.kw, cw))
        defines = (("OUT", kind.upper()),)
        shared = (a.data, w.data, out, ones, limit, scale, shift)
        if self.kernel == "xnor_gemm":
            grid = (-(-columns // TILE_COLUMNS), -(-m // TILE_ROWS))
            return _checked(Launch("xnor_gemm", defines, grid, 256, (*shared, *sizes)))
        return _checked(
            Launch(
                kernel="xnor_gemm_mma",
                defines=(*defines, ("STAGES", MMA_STAGES)),
                grid=(-(-columns // MMA_TILE), -(-m // MMA_TILE)),
                block=256,
                arguments=(*shared, a.ones, w.ones, *sizes),
                shared_bytes=MMA_STAGES * MMA_STAGE_BYTES,
            )
        )

    def _check_operands(self, a: Bits, w: Bits) -> None:
        if a.k != w.k or a.kw != w.kw:
            raise ValueError(f"A has rows of {a.k} elements in {a.kw} words, W of {w.k} in {w.kw}")
        for name, of in (("A", a), ("W", w)):
            self._check(name, of.data, np.uint32, (of.rows, of.kw))
            self._check(f"ones of {name}", of.ones, np.int32, (of.rows,))

    def _check(
        self, name: str, x: Any, dtype: DTypeLike, shape: tuple[int, ...] | None = None
    ) -> None:
        """ValueError where an array is not what a kernel reads."""
        expected = x.shape if shape is None else shape
        if x.dtype != dtype or x.shape != expected or not x.flags.c_contiguous:
            laid = "" if x.flags.c_contiguous else "strided "
            raise ValueError(
                f"{name} is {laid}{x.dtype} {x.shape}: expected contiguous {np.dtype(dtype)} "
                f"{expected}"
            )
        if not self.device.owns(x):
            raise ValueError(f"{name} does not lie on this device")


def convolution(
    images: Any, weights: Any, out: Any, ones: Any, limit: Any, classes: Any, flip: Any, pool: bool
) -> Launch:
    """A launch of xnor_conv.cu, whose header says what each array is; images (B, H, S, CW)."""
    count, height, width, cw = images.shape
    for name, array in (("images", images), ("weights", weights)):
        if math.prod(array.shape) > OFFSETS:
            raise ValueError(f"xnor_conv: {name} of {array.shape} words, more than its 32-bit "
                             "offsets reach; fewer images at once")  # fmt: skip
    pixels = height // 2 * (width // 2) * 4 if pool else height * width
    ow = out.shape[-1]
    return _checked(
        Launch(
            kernel="xnor_conv",
            defines=(("CW", int(cw)), *((("POOL", None),) if pool else ())),
            grid=(-(-ow // 2), -(-count * pixels // CONV_TILE)),
            block=256,
            arguments=(
                images,
                weights,
                out,
                ones,
                limit,
                classes,
                flip,
                *map(np.int32, (count, height, width, limit.shape[1], ow)),
            ),
        )
    )


def first_layer(
    pixels: Any, weights: Any, out: Any, ones: Any, limit: Any, classes: Any, flip: Any, *,
    conv: bool, pool: bool, planes: bool,
) -> Launch:  # fmt: skip
    """A launch of first_layer.cu, whose header says what each array is; pixels (B, C, H, S)."""
    count, channels, height, width = pixels.shape
    rows = count * (height // 2 * (width // 2) * 4 if pool else height * width) if conv else count
    k = 9 * channels if conv else channels * height * width
    ow = out.shape[-1]
    defines: list[tuple[str, int | str | None]] = [("PLANES", None)] if planes else []
    if conv:
        defines += [("CHANNELS", int(channels)), *([("POOL", None)] if pool else [])]
    return _checked(
        Launch(
            kernel="first_layer",
            defines=tuple(defines),
            grid=(-(-ow // 2), -(-rows // CONV_TILE)),
            block=256,
            arguments=(
                pixels,
                weights,
                out,
                ones,
                limit,
                classes,
                flip,
                *map(np.int32, (count, height, width, k, limit.shape[1], weights.shape[1], ow)),
            ),
        )
    )


def baseline(device: Device, a: Any, w: Any, out: Any) -> None:
    """C = A · Wᵀ in float32, unoptimized. Shapes: a (M, K), w (N, K), out (M, N)."""
    (m, k), n = a.shape, w.shape[0]
    grid = (-(-n // 16), -(-m // 16))
    device.launch(
        _checked(
            Launch("baseline_gemm", (), grid, (16, 16), (a, w, out, *map(np.int32, (m, n, k))))
        )
    )


def _checked(launch: Launch) -> Launch:
    if launch.grid[1] > GRID_Y:
        raise ValueError(
            f"{launch.kernel}: {launch.grid[1]} blocks of rows, CUDA takes {GRID_Y}; fewer rows at "
            "once"
        )
    return launch


@functools.cache
def source(kernel: str) -> str:
    """The text of kernels/KERNEL.cu: beside the package in a checkout, inside it in a wheel."""
    for folder in (HERE.parent / "kernels", HERE / "kernels"):
        path = folder / f"{kernel}.cu"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"kernels/{kernel}.cu: not found beside the package nor inside it")


def options(defines: Sequence[tuple[str, int | str | None]]) -> tuple[str, ...]:
    """Compiler options of -D definitions."""
    return tuple(f"-D{name}" if value is None else f"-D{name}={value}" for name, value in defines)


class CudaDevice:
    """A CUDA device by CuPy.

    Work runs on the current stream of PyTorch where it is loaded and uses CUDA, else of CuPy: so
    tensors (by `cupy.from_dlpack`, without a copy) and kernels wait for each other.
    """

    def __init__(self, index: int = 0) -> None:
        import cupy

        if (why := missing()) is not None:
            raise RuntimeError(why)
        self.cupy, self.index = cupy, index
        self.device = cupy.cuda.Device(index)
        digits = self.device.compute_capability
        self.capability = int(digits[:-1]), int(digits[-1])
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
        null = np.uintp(0)
        arguments = tuple(null if x is None else x for x in launch.arguments)
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
        found = self.cupy.cuda.runtime.getDeviceProperties(self.index)
        version = self.cupy.cuda.runtime.runtimeGetVersion()
        return {
            "model": found["name"].decode(),
            "memory_bytes": found["totalGlobalMem"],
            "compute_capability": ".".join(map(str, self.capability)),
            "multiprocessors": found["multiProcessorCount"],
            "cuda": f"{version // 1000}.{version % 1000 // 10}",
            "driver": nvidia_driver(),
        }

    def wait(self) -> None:
        self.device.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        with self.device, self._stream() as stream:
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
        # 'a' has the instructions of one architecture alone; CuPy's own choice is the plain one.
        arch = ("-arch=sm_90a",) if (major, minor) == (9, 0) else ()
        key = launch.kernel, (*options(launch.defines), "-std=c++17", *arch)
        if key not in self._kernels:
            kernel = self.cupy.RawKernel(source(launch.kernel), launch.kernel, key[1])
            if launch.shared_bytes > 48 * 1024:
                kernel.max_dynamic_shared_size_bytes = launch.shared_bytes
            self._kernels[key] = kernel
        return self._kernels[key]
