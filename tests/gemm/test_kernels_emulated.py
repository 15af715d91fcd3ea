"""CUDA kernels, run on the processor by cuda_on_cpu.h: odd shapes, sanitizers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import emulated
import pytest
from kernel_checks import (
    GEMMS,
    OUTS,
    check_adam,
    check_baseline,
    check_code_planes,
    check_convolution,
    check_first_layer,
    check_norm_sign,
    check_packing,
    check_product,
)

PRODUCTS = (
    (1, 1, 1), (2, 31, 4097), (31, 4097, 2), (4097, 2, 31), (32, 33, 1152), (33, 1152, 63),
    (1152, 63, 32), (63, 65, 784), (65, 784, 33), (784, 32, 65), (127, 255, 513), (255, 513, 127),
    (513, 127, 255), (257, 511, 257), (511, 257, 511),
    # Tiles of C of 128 rows and 64, 128 or 256 columns; steps of 512 or 1024 bits, three on their
    # way or four.
    (128, 64, 512), (128, 128, 1024), (129, 65, 513), (127, 63, 511), (129, 129, 1025),
    (127, 127, 1023), (64, 192, 2048), (1, 64, 3072), (17, 1, 3073), (1, 129, 4096), (130, 3, 5120),
    (65, 256, 6145),
)  # fmt: skip
# Few enough for sanitizers, and for both orders: a lone bit; whole tiles; somewhat more and less.
ODD_PRODUCTS = ((1, 1, 1), (128, 128, 1024), (129, 65, 1025), (131, 129, 33), (3, 127, 3073))
SMALL_PRODUCTS = ((17, 15, 33), (16, 32, 16), (31, 33, 70))
# Less than a thread's four, whole ones, more than a block's 1024.
VECTORS = ((1,), (3,), (4,), (1024,), (1027,), (2055,))
# Rows and columns: one; less than a warp's 32 and a block's 512; whole ones; more.
ACTIVATIONS = ((1, 1), (5, 33), (512, 32), (513, 31), (1100, 70), (7, 300))
MATRICES = ((1, 1), (7, 31), (8, 128), (9, 129), (127, 32), (130, 257), (3, 784))
# Images and columns: one pixel; a row and a column of pixels, which no window fits; odd sizes;
# more pixels than a tile of rows, more columns than a tile of columns.
IMAGES = ((1, 1, 1, 1), (3, 1, 9, 5), (2, 5, 7, 33), (5, 8, 8, 64), (1, 15, 13, 131), (2, 2, 2, 70))
FEW_IMAGES = ((2, 5, 7, 33), (1, 2, 2, 70))
# Outputs of less than a word, of more words than a block's eight.
CODES = ((1, 1), (3, 33), (2, 300))
POOLED = ((1, 2, 2, 1), (2, 5, 7, 33), (5, 8, 8, 64), (1, 15, 13, 131), (3, 3, 2, 70))


@dataclass(frozen=True)
class Emulation:
    """How a variant of a kernel is tested."""

    kernel: str
    check: Callable[..., None]  # takes a function that launches, `defines`, and a shape
    shapes: tuple[tuple[int, ...], ...]
    defines: dict[str, Any] = field(default_factory=dict)  # None: the name alone
    odd_shapes: tuple[tuple[int, ...], ...] = ()  # none: all
    sanitize: bool = True

    def __str__(self) -> str:
        return "-".join((self.kernel, *(f"{k}={v}" if v else k for k, v in self.defines.items())))

    def run(self, shape, *, checked=False, backwards=False):
        def launch(grid, block, arguments, shared_bytes=0):
            kernel = emulated.kernel(self.kernel, checked=checked, **self.defines)
            kernel(grid, block, arguments, shared_bytes, backwards)

        self.check(launch, self.defines, shape)


def _bits(inputs, weights, outputs):
    return {"INPUT_BITS": inputs, "WEIGHT_BITS": weights, "OUTPUT_BITS": outputs}


def emulations():
    """All of them. A variant of a kernel is tested by an entry here."""
    for out in OUTS:
        how = (PRODUCTS, {"OUT": out}, ODD_PRODUCTS, out in {"FLOAT32", "BITS"})
        for kernel in GEMMS:
            yield Emulation(kernel, partial(check_product, kernel=kernel), *how)
    yield Emulation("baseline_gemm", check_baseline, ODD_PRODUCTS[:1] + SMALL_PRODUCTS)
    for kind in ("FLOAT32", "INT32", "UINT8"):
        for way in ({}, {"TRANSPOSED": None}):
            first = kind == "FLOAT32"
            yield Emulation("pack_bits", check_packing, MATRICES, {"IN": kind, **way}, (), first)
    for defines, shapes, sanitize in (
        ({"CW": 4}, IMAGES, True),
        ({"CW": 12}, IMAGES, False),
        ({"CW": 4, "POOL": None}, POOLED, True),
        ({"CW": 4, **_bits(2, 3, 2)}, FEW_IMAGES, True),
        ({"CW": 4, "POOL": None, **_bits(4, 1, 3)}, FEW_IMAGES, False),
    ):
        yield Emulation("xnor_conv", check_convolution, shapes, defines, (), sanitize)
    for defines, shapes, sanitize in (
        ({}, IMAGES, True),
        ({"PLANES": None}, IMAGES, False),
        ({"CHANNELS": 3}, IMAGES, False),
        ({"CHANNELS": 5, "PLANES": None}, IMAGES, True),
        ({"CHANNELS": 3, "POOL": None}, POOLED, True),
        ({"CHANNELS": 3, "POOL": None, "PLANES": None}, POOLED, False),
        ({"OUTPUT_BITS": 4}, FEW_IMAGES, False),
        (
            {"CHANNELS": 3, "POOL": None, "PLANES": None, "WEIGHT_BITS": 4, "OUTPUT_BITS": 2},
            FEW_IMAGES,
            True,
        ),
    ):
        yield Emulation("first_layer", check_first_layer, shapes, defines, (), sanitize)
    for bits in ((1, 1, 2), (3, 4, 1), (2, 2, 4)):
        yield Emulation("code_planes", check_code_planes, CODES, _bits(*bits))
    for defines in ({}, {"CLIP": None}, {"SIGNS": None}, {"CLIP": None, "SIGNS": None}):
        yield Emulation("adam", check_adam, VECTORS, defines, (), len(defines) == 2)
    for name in ("MOMENTS", "LINE", "SIGN", "GRADIENT_SUMS", "FACTORS", "GRADIENT"):
        yield Emulation("norm_sign", check_norm_sign, ACTIVATIONS, {"PASS": name})


EMULATIONS = tuple(emulations())


@pytest.fixture(scope="module", autouse=True)
def builds(request):
    """Has the programs of all tests that follow made beforehand, two at a time."""
    started = []
    for item in () if emulated.missing(checked=True) else request.session.items:
        emulation = item.callspec.params.get("emulation") if hasattr(item, "callspec") else None
        if isinstance(emulation, Emulation):
            checked = item.originalname == test_nothing_but_its_operands_is_touched.__name__
            started.append(emulated.start(emulation.kernel, checked=checked, **emulation.defines))
    yield
    for build in started:
        build.cancel()


def by_name(value):
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def test_every_kernel_is_emulated():
    kernels = {path.stem for path in emulated.KERNELS.glob("*.cu")}
    assert kernels == {emulation.kernel for emulation in EMULATIONS}


def launches():
    """(emulation, shape): what a product writes is tried on few shapes, but for sums on all."""
    for e in EMULATIONS:
        for shape in dict.fromkeys((*e.shapes, *e.odd_shapes)):
            usual = not e.odd_shapes or shape in e.odd_shapes or e.defines.get("OUT") == "INT32"
            yield pytest.param(e, shape, marks=() if usual else pytest.mark.exhaustive)


@pytest.mark.parametrize(("emulation", "shape"), list(launches()), ids=by_name)
def test_kernel_does_what_its_header_says(emulation, shape):
    emulation.run(shape)


@pytest.mark.parametrize("kernel", sorted({emulation.kernel for emulation in EMULATIONS}))
def test_the_order_of_threads_does_not_matter_and_every_line_runs(kernel):
    variants = [emulation for emulation in EMULATIONS if emulation.kernel == kernel]
    for emulation in variants:
        for shape in emulation.odd_shapes or emulation.shapes:
            emulation.run(shape, backwards=True)
    counts = emulated.executed_lines([emulated.kernel(kernel, **e.defines) for e in variants])
    assert len(counts) > 10
    assert [line for line, count in sorted(counts.items()) if not count] == []


@pytest.mark.parametrize("emulation", [e for e in EMULATIONS if e.sanitize], ids=by_name)
def test_nothing_but_its_operands_is_touched(emulation):
    for shape in emulation.odd_shapes or emulation.shapes:
        emulation.run(shape, checked=True)
