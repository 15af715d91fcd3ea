"""XNOR-popcount products of ±1 matrices on an NVIDIA GPU: operands, checks and launches.

The kernels are `kernels/*.cu`. This module checks and allocates; a `Device` compiles and launches;
dispatch.py selects the fastest kernel. CuPy's RawKernel checks neither types nor strides, so every
operand is checked here.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from bnnrun.gemm.bits import Words, words
from bnnrun.gemm.cuda_device import Device, Launch

UNIT_WORDS = 4  # a row of bits is a multiple of 16 bytes
MAX_OFFSET = 2**31 - 1  # words that xnor_conv's 32-bit offsets can address
GRID_Y = 65_535  # CUDA's largest grid dimension y
CONV_TILE = 64  # rows of a block of xnor_conv and first_layer

OUTPUTS = {"int32": np.int32, "int16": np.int16, "float32": np.float32}


@dataclass(frozen=True)
class Variant:
    """A kernel of the XNOR product.

    Attributes:
        columns:     columns of the tile that a block computes; its rows are TILE_ROWS
        stages:      pipeline buffers in dynamic shared memory; 0: the kernel declares its own
        stage_bytes: bytes of each buffer
        min_capability, max_capability: compute capabilities that it supports, both included
    """

    columns: int
    stages: int
    stage_bytes: int
    min_capability: tuple[int, int]
    max_capability: tuple[int, int]


# The slowest first. Binary tensor cores support `.and.popc` from 8.0 to 9.0; later ones emulate it,
# and have no binary product of warpgroups.
VARIANTS = {
    "xnor_gemm": Variant(64, 0, 0, (0, 0), (99, 9)),
    "xnor_gemm_mma": Variant(128, 3, 32_768, (8, 0), (9, 0)),
    "xnor_gemm_wgmma": Variant(256, 4, 49_152, (9, 0), (9, 0)),
}
TILE_ROWS = 128


@dataclass(frozen=True)
class Bits:
    """A matrix of ±1 on a device.

    Attributes:
        data: (R, KW) uint32, KW a multiple of UNIT_WORDS; bits past K are 0
        ones: (R,) int32, popcount of each row
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


def row_words(k: int) -> int:
    """Words of a row of `k` bits on a device: a multiple of UNIT_WORDS."""
    return -(-words(k) // UNIT_WORDS) * UNIT_WORDS


class Xnor:
    """Products of ±1 matrices on one device.

    Args:
        kernel: a name in VARIANTS

    Raises:
        ValueError: the device does not support the kernel; by every method, operands whose
                    shapes, dtypes or layouts do not fit each other
    """

    def __init__(self, device: Device, kernel: str = "xnor_gemm") -> None:
        if kernel not in VARIANTS:
            raise ValueError(f"kernel {kernel}: expected one of {', '.join(VARIANTS)}")
        self.device, self.kernel, self.variant = device, kernel, VARIANTS[kernel]
        if not self.variant.min_capability <= device.capability <= self.variant.max_capability:
            lowest, highest, has = (
                ".".join(map(str, capability))
                for capability in (
                    self.variant.min_capability,
                    self.variant.max_capability,
                    device.capability,
                )
            )
            raise ValueError(f"kernel {kernel}: for compute capability {lowest} to {highest}, "
                             f"this is {has}")  # fmt: skip

    def encode(self, rows: Words, k: int) -> Bits:
        """(R, words) uint32 of the host, as `bits.pack` makes them."""
        data = np.zeros((len(rows), row_words(k)), np.uint32)
        data[:, : rows.shape[1]] = rows
        ones = np.bitwise_count(data).sum(axis=1, dtype=np.int32)
        return Bits(self.device.put(data), self.device.put(ones), k)

    def pack(self, x: Any, transposed: bool = False, out: Bits | None = None) -> Bits:
        """Signs of a device array as bits: x >= 0, or of uint8 and bool not 0.

        Args:
            x:   (R, K) float32, int32, uint8 or bool; (K, R) if `transposed`
            out: from `empty_bits`, overwritten; None: a new one
        """
        formats = {"float32": "FLOAT32", "int32": "INT32", "uint8": "UINT8", "bool": "UINT8"}
        format = formats.get(np.dtype(x.dtype).name)
        if format is None or len(x.shape) != 2:
            raise ValueError(f"x is {x.dtype} {x.shape}: expected two dimensions of "
                             f"{', '.join(formats)}")  # fmt: skip
        self._check("x", x, x.dtype)
        r, k = x.shape[::-1] if transposed else x.shape
        kw = row_words(k)
        out = self.empty_bits(r, int(k)) if out is None else out
        self._check_bits(out, r, int(k))
        if r and kw:
            self.device.clear(out.ones)
            self.device.launch(
                Launch(
                    kernel="pack_bits",
                    defines=(("IN", format), *((("TRANSPOSED", None),) if transposed else ())),
                    grid=(-(-r // 128), kw // UNIT_WORDS) if transposed else (-(-r // 8), 1),
                    block=128 if transposed else 256,
                    arguments=(x, out.data, out.ones, *map(np.int32, (r, k, kw))),
                )
            )
        return out

    def multiply(
        self,
        a: Bits,
        w: Bits,
        dtype: str = "int32",
        scale: Any = None,
        shift: Any = None,
        out: Any = None,
    ) -> Any:
        """s = A · Wᵀ, (M, N) int32 or int16; as float32 s · scale[n] + shift[n]."""
        self._check_operands(a, w)
        if dtype not in OUTPUTS:
            raise ValueError(f"dtype {dtype}: expected one of {', '.join(OUTPUTS)}")
        if dtype == "int16" and a.k > np.iinfo(np.int16).max:
            raise ValueError(f"K is {a.k}: its sums do not fit int16")
        if (dtype == "float32") != (scale is not None and shift is not None):
            raise ValueError("scale and shift belong to float32, and it needs both")
        if dtype == "float32":
            self._check("scale", scale, np.float32, (w.rows,))
            self._check("shift", shift, np.float32, (w.rows,))
        if out is None:
            out = self.device.empty((a.rows, w.rows), OUTPUTS[dtype])
        self._check("out", out, OUTPUTS[dtype], (a.rows, w.rows))
        if out.size:
            self.device.launch(self._product(dtype, a, w, out, None, None, scale, shift, 0))
        return out

    def multiply_to_bits(self, a: Bits, w: Bits, thresholds: Any, out: Bits | None = None) -> Bits:
        """Bits popc(a ^ w) <= thresholds[n], that is s >= K - 2 · thresholds[n].

        Args:
            thresholds: (N,) int32
            out:        from `empty_bits`, overwritten; None: a new one
        """
        self._check_operands(a, w)
        self._check("thresholds", thresholds, np.int32, (w.rows,))
        out = self.empty_bits(a.rows, w.rows) if out is None else out
        self._check_bits(out, a.rows, w.rows)
        if a.rows:
            self.device.clear(out.ones)
            self.device.launch(
                self._product("BITS", a, w, out.data, out.ones, thresholds, None, None, out.kw)
            )
        return out

    def empty_bits(self, rows: int, k: int) -> Bits:
        """A buffer for a matrix of bits, zeros."""
        data = self.device.zeros((rows, row_words(k)), np.uint32)
        return Bits(data, self.device.zeros((rows,), np.int32), k)

    def _product(
        self, output: str, a: Bits, w: Bits, out: Any, ones: Any, thresholds: Any, scale: Any,
        shift: Any, cw: int,
    ) -> Launch:  # fmt: skip
        m, n, tile = a.rows, w.rows, self.variant
        columns = 32 * cw if output == "BITS" else n
        grid = (-(-columns // tile.columns), -(-m // TILE_ROWS))
        arguments: tuple[Any, ...] = (a.data, w.data, out, ones, thresholds, scale, shift)
        defines: tuple[tuple[str, int | str | None], ...] = (("OUT", output.upper()),)
        if tile.stages:
            arguments += (a.ones, w.ones)
            defines += (("STAGES", tile.stages),)
        sizes = map(np.int32, (m, n, a.k, a.kw, cw))
        shared_bytes = tile.stages * tile.stage_bytes
        return _checked(Launch(self.kernel, defines, grid, 256, (*arguments, *sizes), shared_bytes))

    def _check_operands(self, a: Bits, w: Bits) -> None:
        if a.k != w.k or a.kw != w.kw:
            raise ValueError(f"A has rows of {a.k} elements in {a.kw} words, W of {w.k} in {w.kw}")
        for name, operand in (("A", a), ("W", w)):
            self._check(name, operand.data, np.uint32, (operand.rows, operand.kw))
            self._check(f"ones of {name}", operand.ones, np.int32, (operand.rows,))

    def _check_bits(self, out: Bits, rows: int, k: int) -> None:
        self._check("out", out.data, np.uint32, (rows, row_words(k)))
        self._check("ones of out", out.ones, np.int32, (rows,))

    def _check(
        self, name: str, x: Any, dtype: DTypeLike, shape: tuple[int, ...] | None = None
    ) -> None:
        """Raise ValueError unless an array has the dtype, shape and layout that a kernel reads."""
        expected = x.shape if shape is None else shape
        if x.dtype != dtype or x.shape != expected or not x.flags.c_contiguous:
            layout = "" if x.flags.c_contiguous else "strided "
            raise ValueError(
                f"{name} is {layout}{x.dtype} {x.shape}: expected contiguous {np.dtype(dtype)} "
                f"{expected}"
            )
        if not self.device.owns(x):
            raise ValueError(f"{name} does not lie on this device")


def convolution(
    images: Any, weights: Any, out: Any, ones: Any, thresholds: Any, classes: Any, flip: Any,
    pool: bool,
) -> Launch:  # fmt: skip
    """A launch of xnor_conv.cu, whose header says what each array is.

    Shapes, each number in bit planes:
        images:     (B, input bits, H, S, CW)
        weights:    (weight bits, N, 9 CW)
        out:        (B, output bits, H', S', OW)
        thresholds: (border classes, 2^output bits - 1, N)
    """
    count, input_bits, height, width, cw = images.shape
    for name, array in (("images", images), ("weights", weights)):
        if math.prod(array.shape) > MAX_OFFSET:
            raise ValueError(f"xnor_conv: {name} of {array.shape} words, more than its 32-bit "
                             "offsets reach; fewer images at once")  # fmt: skip
    pixels = height // 2 * (width // 2) * 4 if pool else height * width
    ow = out.shape[-1]
    return _checked(
        Launch(
            kernel="xnor_conv",
            defines=(
                ("CW", int(cw)),
                *((("POOL", None),) if pool else ()),
                *_planes(INPUT=input_bits, WEIGHT=weights.shape[0], OUTPUT=out.shape[1]),
            ),
            grid=(-(-ow // 2), -(-count * pixels // CONV_TILE)),
            block=256,
            arguments=(
                images, weights, out, ones, thresholds, classes, flip,
                *map(np.int32, (count, height, width, thresholds.shape[-1], ow)),
            ),
        )
    )  # fmt: skip


def first_layer(
    pixels: Any, weights: Any, out: Any, ones: Any, thresholds: Any, classes: Any, flip: Any, *,
    conv: bool, pool: bool, planes: bool,
) -> Launch:  # fmt: skip
    """A launch of first_layer.cu, whose header says what each array is.

    Shapes:
        pixels:     (B, C, H, S)
        weights:    (N, KW), or with `planes` (weight bits, N, KW)
        out:        (B, output bits, [H', S',] OW)
        thresholds: (border classes, 2^output bits - 1, N)
    """
    count, channels, height, width = pixels.shape
    rows = count * (height // 2 * (width // 2) * 4 if pool else height * width) if conv else count
    k = 9 * channels if conv else channels * height * width
    ow = out.shape[-1]
    defines: list[tuple[str, int | str | None]] = [("PLANES", None)] if planes else []
    if conv:
        defines += [("CHANNELS", int(channels)), *([("POOL", None)] if pool else [])]
    defines += _planes(WEIGHT=weights.shape[0] if planes else 1, OUTPUT=out.shape[1])
    return _checked(
        Launch(
            kernel="first_layer",
            defines=tuple(defines),
            grid=(-(-ow // 2), -(-rows // CONV_TILE)),
            block=256,
            arguments=(
                pixels, weights, out, ones, thresholds, classes, flip,
                *map(
                    np.int32, (count, height, width, k, thresholds.shape[-1], weights.shape[-1], ow)
                ),
            ),
        )
    )  # fmt: skip


def code_planes(
    products: Any, out: Any, ones: Any, thresholds: Any, k: int, input_bits: int, weight_bits: int
) -> Launch:  # fmt: skip
    """A launch of code_planes.cu, whose header says what each array is.

    Shapes:
        products:   (B · input bits, weight bits · N) int32, rows of K elements multiplied
        out:        (B, output bits, OW)
        thresholds: (2^output bits - 1, N)
    """
    (count, bits, ow), n = out.shape, thresholds.shape[-1]
    base = k * (2**input_bits - 1) * (2**weight_bits - 1)
    return _checked(
        Launch(
            kernel="code_planes",
            defines=(
                ("INPUT_BITS", input_bits), ("WEIGHT_BITS", weight_bits), ("OUTPUT_BITS", int(bits))
            ),
            grid=(-(-ow // 8), count),
            block=256,
            arguments=(products, thresholds, out, ones, *map(np.int32, (n, ow, base))),
        )
    )  # fmt: skip


def _planes(**bits: int) -> list[tuple[str, int | str | None]]:
    """Defines of the numbers that have more than one bit: one is what a kernel is made for."""
    return [(f"{name}_BITS", int(count)) for name, count in bits.items() if count > 1]


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
