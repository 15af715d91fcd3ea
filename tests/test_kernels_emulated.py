"""CUDA kernels, run on the processor by cuda_on_cpu.h, against whole numbers in NumPy.

Every array of a launch lies between guard zones; what a kernel is to write is poisoned before.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import emulated
import numpy as np
import pytest

from bnnrun.gemm import bits, reference


def rows_of(x):
    """Words of rows that begin on 16 bytes: (..., K) booleans -> (..., KW) uint32."""
    words = bits.pack(x)
    return np.pad(words, [(0, 0)] * (x.ndim - 1) + [(0, -words.shape[-1] % 4)])


def poisoned(shape, dtype):
    return np.full(np.prod(shape, dtype=int) * np.dtype(dtype).itemsize, 0x5A, np.uint8) \
        .view(dtype).reshape(shape)  # fmt: skip


def blocks(*sizes_and_tiles):
    return tuple(-(-size // tile) for size, tile in sizes_and_tiles)


def limits_among(rng, d, shape):
    """Limits that occur among the counts `d`, so that bits go both ways, and beyond their ends."""
    info = np.iinfo(np.int32)
    ends = [info.min, d.min() - 1, d.min(), d.max() - 1, d.max(), info.max]
    return np.where(
        rng.random(shape) < 0.2, rng.choice(ends, shape), rng.choice(d.ravel(), shape)
    ).astype(np.int32)


# ------------------------------------------------------------------------------- products

OUTS = {"INT32": np.int32, "INT16": np.int16, "FLOAT32": np.float32, "BITS": np.uint32}
# Of each kernel: the columns of a tile of 128 rows, bytes of shared memory.
GEMMS = {
    "xnor_gemm": (64, 0),
    "xnor_gemm_mma": (128, 3 * 32768),
    "xnor_gemm_wgmma": (256, 4 * 49152),
}


def check_product(launch, defines, shape, kernel):
    """A (M, N, K) product of random bits; all that the kernel writes is compared.

    Products take the arguments of xnor_gemm.cu; those of tensor cores also the 1 bits of rows.
    """
    (m, n, k), out = shape, defines["OUT"]
    rng = np.random.default_rng(shape)
    a, w = (rng.random((rows, k)) < 0.5 for rows in (m, n))
    s = reference.multiply(bits.pack(a), bits.pack(w), k)
    d = (k - s) // 2
    limit = limits_among(rng, d, n)
    # Of a size that s * scale + shift is exact in float64.
    scale, shift = (rng.uniform(0.5, 2, (2, n)) * rng.choice((-1, 1), (2, n))).astype(np.float32)
    before = rng.integers(0, 100, m).astype(np.int32)

    rows, columns = rows_of(a), rows_of(w)
    kw, cw = rows.shape[1], rows_of(np.zeros((0, n), bool)).shape[1]
    c = poisoned((m, cw if out == "BITS" else n), OUTS[out])
    ones = before.copy()
    arguments = [rows, columns, c]
    arguments += [ones, limit] if out == "BITS" else [None, None]
    arguments += [scale, shift] if out == "FLOAT32" else [None, None]
    tile, shared_bytes = GEMMS[kernel]
    if shared_bytes:
        arguments += [x.sum(axis=1).astype(np.int32) for x in (a, w)]
    grid = blocks((32 * cw if out == "BITS" else n, tile), (m, 128))
    arguments += map(np.int32, (m, n, k, kw, cw))
    launch(grid, (256,), arguments, shared_bytes)

    if out == "BITS":
        np.testing.assert_array_equal(c, rows_of(d <= limit))
        np.testing.assert_array_equal(ones - before, (d <= limit).sum(axis=1))
    elif out == "FLOAT32":
        exact = s * scale.astype(np.float64) + shift
        np.testing.assert_array_equal(c, exact.astype(np.float32))
    else:
        np.testing.assert_array_equal(c, s.astype(OUTS[out]))


def check_baseline(launch, defines, shape):
    """A (M, N, K) product of ±1 in float32, where it is exact."""
    m, n, k = shape
    rng = np.random.default_rng(shape)
    a, w = (rng.choice((-1, 1), (rows, k)).astype(np.float32) for rows in (m, n))
    c = poisoned((m, n), np.float32)
    arguments = [a, w, c, *map(np.int32, shape)]
    launch(blocks((n, 16), (m, 16)), (16, 16), arguments)
    np.testing.assert_array_equal(c, a @ w.T)


# -------------------------------------------------------------------------------- packing


def check_packing(launch, defines, shape):
    """Bits of an (R, K) matrix, with the numbers whose sign is a matter of definition."""
    r, k = shape
    rng = np.random.default_rng(shape)
    if defines["IN"] == "FLOAT32":
        special = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45]
        x = np.where(rng.random(shape) < 0.3, rng.choice(special, shape), rng.normal(size=shape))
        x = x.astype(np.float32)
    elif defines["IN"] == "INT32":
        x = rng.choice([-(2**31), -1, 0, 1, 2**31 - 1], shape).astype(np.int32)
    else:
        x = rng.choice([0, 1, 128, 255], shape).astype(np.uint8)
    expected = rows_of(x != 0 if x.dtype == np.uint8 else x >= 0)
    kw = expected.shape[1]
    out, ones = poisoned((r, kw), np.uint32), poisoned(r, np.int32)
    grid, block = blocks((r, 8)), (256,)
    if "TRANSPOSED" in defines:
        x = np.ascontiguousarray(x.T)
        ones[:] = 0
        grid, block = (*blocks((r, 128)), kw // 4), (128,)
    launch(grid, block, [x, out, ones, *map(np.int32, (r, k, kw))])
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(ones, np.bitwise_count(expected).sum(axis=1))


# --------------------------------------------------------------------------- convolutions


def patches_of(padded):
    """(B, H + 2, S + 2, C) -> (B, H, S, 9 * C): the taps row by row, of each its channels."""
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    b, h, s, c = windows.shape[:4]
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(b, h, s, 9 * c)


def around(images):
    """(B, H, S, C) with zeros around the images."""
    return np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))


def check_layer(launch, d, operands, sizes, *, tile, pool, classes):
    """A layer whose counts are d (B, H, S, N): its bits by limits, in windows with `pool`."""
    b, h, s, n = d.shape
    rng = np.random.default_rng(d.shape)
    of_pixel = rng.integers(0, classes, h * s).astype(np.int32)
    limit = limits_among(rng, d, (classes, n))
    passes = d <= limit[of_pixel].reshape(h, s, n)
    flip = rng.random(n) < 0.5
    if pool:
        h, s = h // 2, s // 2
        windows = passes[:, : 2 * h, : 2 * s].reshape(b, h, 2, s, 2, n)
        passes = np.where(flip, windows.all(axis=(2, 4)), windows.any(axis=(2, 4)))
    expected = rows_of(passes)
    ow = expected.shape[-1]
    out, before = poisoned(expected.shape, np.uint32), rng.integers(0, 100, b).astype(np.int32)
    ones = before.copy() if n % 2 else None
    arguments = [*operands, out, ones, limit, of_pixel if classes > 1 else None,
                 rows_of(flip) if pool else None, *map(np.int32, (*sizes, ow))]  # fmt: skip
    launch(blocks((ow, 2), (b * h * s * (4 if pool else 1), tile)), (256,), arguments)
    np.testing.assert_array_equal(out, expected)
    if ones is not None:
        np.testing.assert_array_equal(ones - before, passes.sum(axis=(1, 2, 3)))


def check_convolution(launch, defines, shape):
    """Of (B, H, S) images and N columns; channels do not fill their words."""
    b, h, s, n = shape
    rng = np.random.default_rng(shape)
    channels = 32 * defines["CW"] - 5
    a, w = rng.random((b, h, s, channels)) < 0.5, rng.random((n, 9, channels)) < 0.5
    # popc(a ^ w), where padding counts as 0 bits
    rows, flat = patches_of(around(a)).reshape(b * h * s, -1), w.reshape(n, -1)
    both = rows.astype(np.float32) @ flat.T.astype(np.float32)
    d = rows.sum(axis=1)[:, None] + flat.sum(axis=1) - 2 * both.astype(np.int64)
    check_layer(launch, d.reshape(b, h, s, n), [rows_of(a), rows_of(w)], shape, tile=64,
                pool="POOL" in defines, classes=4)  # fmt: skip


def check_first_layer(launch, defines, shape):
    """Of (B, H, S) images of bytes and N columns; without CHANNELS a row of H * S bytes each."""
    b, h, s, n = shape
    rng = np.random.default_rng(shape)
    channels = defines.get("CHANNELS", 1)
    x = rng.integers(0, 256, (b, channels, h, s)).astype(np.uint8)
    x[rng.random(x.shape) < 0.2] = 255
    if "CHANNELS" in defines:
        rows = patches_of(around(x.transpose(0, 2, 3, 1))).astype(np.int64)
    else:
        rows = x.reshape(b, 1, 1, h * s).astype(np.int64)
    k = rows.shape[-1]
    w = rng.random((n, k)) < 0.5
    d = -rows @ np.where(w, 1, -1).T
    if "PLANES" in defines:
        d += 255 * w.sum(axis=1)
        words = bits.pack(w)
    else:
        minus = np.pad(np.where(w, -1, 1).astype(np.int8), ((0, 0), (0, -k % 4)))
        words = minus.view(np.uint32)
    sizes = (b, h, s, k, n, words.shape[1])
    check_layer(launch, d, [x, words], sizes, tile=64,
                pool="POOL" in defines, classes=4 if "CHANNELS" in defines else 1)  # fmt: skip


def check_adam(launch, defines, shape):
    (n,) = shape
    rng = np.random.default_rng(n)
    w, g, m = rng.normal(size=(3, n)).astype(np.float32)
    v, signs = rng.random(n, np.float32), np.full(n, 7, np.float32)
    rate, c, eps = np.array([0.25], np.float32), np.float32(1.5), np.float32(1e-3)
    b1, b2 = np.float32(0.75), np.float32(0.875)
    right_m = b1 * m + (1 - b1) * g
    right_v = b2 * v + (1 - b2) * g * g
    right = w - rate * c * right_m / (np.sqrt(right_v) + eps)
    right = right.clip(-1, 1) if "CLIP" in defines else right
    numbers = b1, 1 - b1, b2, 1 - b2, c, eps
    launch(blocks((n, 1024)), (256,), [w, g, m, v, signs, rate, *numbers, np.int64(n)])
    for found, expected in ((w, right), (m, right_m), (v, right_v)):
        np.testing.assert_allclose(found, expected, 1e-5, 1e-6)
    asked = np.where(w >= 0, 1, -1) if "SIGNS" in defines else np.full(n, 7)
    np.testing.assert_array_equal(signs, asked)


def check_norm_sign(launch, defines, shape):
    """Each pass from what the ones before it should have left."""
    r, n = shape
    rng = np.random.default_rng(r + n)
    p = rng.integers(-9, 9, shape).astype(np.float32)
    g, gamma, beta = (rng.normal(size=k).astype(np.float32) for k in (shape, n, n))
    limit, eps, sizes = np.float32(1), np.float32(0.125), (np.int64(r), np.int32(n))
    groups = [slice(i, i + 512) for i in range(0, r, 512)]

    def sums(*of):
        return np.array([[x[group].sum(0, np.float64) for x in of] for group in groups])

    mean, inv = p.mean(0, np.float64), 1 / np.sqrt(p.var(0, dtype=np.float64) + eps)
    line = np.array([mean, gamma * inv, beta, inv], np.float32)
    y = (p - line[0]) * line[1] + line[2]
    g_y = np.where(np.abs(y) <= limit, g, 0)
    x = (p - mean) * inv
    right = gamma * inv * (g_y - g_y.mean(0) - x * (g_y * x).mean(0))
    along, whole = (g_y * x).sum(0), g_y.sum(0)
    k2 = -gamma * inv * inv * along / r
    factors = np.array([gamma * inv, -gamma * inv * whole / r - k2 * mean, k2, along, whole])
    of_p, of_g = sums(p, p.astype(np.float64) ** 2), sums(g_y, g_y * (p - line[0]))
    out = {"MOMENTS": of_p, "GRADIENT_SUMS": of_g, "LINE": line, "FACTORS": factors.astype("f4"),
           "SIGN": p, "GRADIENT": p}[defines["PASS"]]  # fmt: skip
    out = np.full_like(out, np.nan)
    by_parts, by_columns = blocks((n, 32), (r, 512)), blocks((n, 256))
    by_rows = blocks((n, 32), (min(r, 256), 128))  # two at most: then each takes more than one
    grid, arguments, expected = {
        "MOMENTS": (by_parts, [p, out], of_p),
        "LINE": (by_columns, [of_p, gamma, beta, eps, out], line),
        "SIGN": (by_rows, [p, line, out], np.where(y >= 0, 1, -1)),
        "GRADIENT_SUMS": (by_parts, [p, g, line, limit, out], of_g),
        "FACTORS": (by_columns, [of_g, gamma, line, out], factors),
        "GRADIENT": (by_rows, [p, g, factors.astype("f4"), limit, line, out], right),
    }[defines["PASS"]]
    launch(grid, (256,), [*arguments, *sizes])
    np.testing.assert_allclose(out, expected, 2e-5, 2e-5)


# --------------------------------------------------------------------------------- tests

# M, N and K each take each of 1, 2, 31, 32, 33, 63, 65, 127, 255, 257, 511, 513, 784, 1152, 4097.
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
    ):
        yield Emulation("xnor_conv", check_convolution, shapes, defines, (), sanitize)
    for defines, shapes, sanitize in (
        ({}, IMAGES, True),
        ({"PLANES": None}, IMAGES, False),
        ({"CHANNELS": 3}, IMAGES, False),
        ({"CHANNELS": 5, "PLANES": None}, IMAGES, True),
        ({"CHANNELS": 3, "POOL": None}, POOLED, True),
        ({"CHANNELS": 3, "POOL": None, "PLANES": None}, POOLED, False),
    ):
        yield Emulation("first_layer", check_first_layer, shapes, defines, (), sanitize)
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


@pytest.mark.parametrize(
    ("emulation", "shape"), [(e, shape) for e in EMULATIONS for shape in e.shapes], ids=by_name
)
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


# ------------------------------------------------------------ what the emulation itself notices

# `step` says what the kernel does, rightly or not.
CASES = """
enum { BARRIER, NO_BARRIER, RETURN, TWO_BARRIERS, WARP_WITHOUT_LANE, WAIT, NO_WAIT, TOO_FAR,
       DYNAMIC_TOO_FAR, LOCAL_TOO_FAR, SHUFFLE, VOTE, MATRIX, RETURNED_LANE,
       ARITHMETIC };

extern "C" __global__ void cases(unsigned* out, const uint4* in, int step)
{
    __shared__ unsigned words[64];
    extern __shared__ __align__(16) uint4 quads[];
    const int t = threadIdx.x;

    if (step == BARRIER || step == NO_BARRIER) {
        words[t] = t;
        if (step == BARRIER) __syncthreads();
        out[t] = words[63 - t];
    }
    if (step == RETURN && t >= 40) return;
    if (step == RETURN) {
        __syncthreads();
        out[t] = t;
    }
    if (step == TWO_BARRIERS) {
        if (t < 40)
            __syncthreads();
        else
            __syncthreads();
    }
    if (step == WARP_WITHOUT_LANE) {
        if (t == 3) __syncthreads();
        __syncwarp();
    }
    if (step == WAIT || step == NO_WAIT) {
        copy_16_async(quads + t, in + t, t % 2);
        commit_copies();
        copy_16_async(quads + 64 + t, in + t, true);
        commit_copies();
        if (step == WAIT) wait_for_copies<1>();
        out[t] = quads[t].y;
        out[64 + t] = quads[64 + t].y;
    }
    if (step == TOO_FAR) out[2 * t + 3] = 0;
    if (step == DYNAMIC_TOO_FAR) quads[2 * t + 3].w = 0;
    if (step == LOCAL_TOO_FAR) {
        unsigned local[4], *p = local;
        __syncthreads();
        p[t] = t;
        out[t] = local[t % 4];
    }
    if (step == SHUFFLE) {
        out[t] = __shfl_sync(0xffffffffu, t, 5, 8);
        out[t] = out[t] * 64 + __shfl_up_sync(0xffffffffu, t, 1u, 16);
        out[t] = out[t] * 64 + __shfl_down_sync(0xffffffffu, t, 3u);
        out[t] = out[t] * 64 + __shfl_xor_sync(0xffffffffu, t, 9);
    }
    if (step == VOTE && t % 2) {
        out[t] = __ballot_sync(0xaaaaaaaau, t > 8);
        out[64 + t] = __all_sync(0xaaaaaaaau, t < 40) * 2 + __any_sync(0xaaaaaaaau, t < 40);
    }
    if (step == MATRIX) {
        quads[t] = in[t];
        __syncthreads();
        unsigned r[4], pair[2];
        load_matrices_x4(r, quads + (t + 1) % 32);
        load_matrices_x2(pair, quads + t % 16);
        out[t] = r[0] + 10 * r[1] + 100 * r[2] + 1000 * r[3];
        out[64 + t] = pair[0] + 10 * pair[1];
    }
    if (step == ARITHMETIC && t == 0) {
        const unsigned x = 0x80402019u, y = 0xfedcba98u;
        out[0] = __brev(x);
        out[1] = __funnelshift_l(x, y, 36);
        out[2] = __funnelshift_r(x, y, 8);
        out[3] = __byte_perm(x, y, 0x7043);
        out[4] = __dp4a(int(x), int(y), 5);
        out[5] = __dp4a(x, y, 5u);
        out[6] = multiply_bytes(x, y, 5);
        out[7] = __clz(0) * 100 + __clz(255);
        out[8] = __ffs(0) * 100 + __ffs(40);
        out[9] = __float2int_rn(2.5f) * 100 + __float2int_rn(-3.5f);
        out[10] = __popcll(0x8000000000000003ull);
    }
    if (step == RETURNED_LANE) {
        if (t == 7) return;
        unsigned r[4];
        load_matrices_x4(r, quads);
    }
}
"""
STEPS = CASES[CASES.index("{") + 1 : CASES.index("}")].replace(",", " ").split()
POISON = 0xA5A5A5A5
THREAD = np.arange(64)


def case(step, *, checked=False, backwards=False, shared_bytes=2048):
    """What a step of `cases` leaves in 128 words that were 77, from a block of 64 threads."""
    out = np.full(128, 77, np.uint32)
    quads = np.arange(256, dtype=np.uint32)  # 64 times four words
    kernel = emulated.compiled(CASES, "cases", checked=checked)
    arguments = (out, quads, np.int32(STEPS.index(step)))
    kernel((1,), (64,), arguments, shared_bytes, backwards)
    return out


@pytest.mark.parametrize("backwards", [False, True])
def test_a_missing_barrier_shows(backwards):
    found = case("NO_BARRIER", backwards=backwards)[:64]
    assert case("BARRIER", backwards=backwards)[:64].tolist() == (63 - THREAD).tolist()
    assert (found == POISON).sum() == 32


def test_threads_that_have_returned_are_not_waited_for():
    expected = np.where(THREAD < 40, THREAD, 77)
    assert case("RETURN")[:64].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("TWO_BARRIERS", r"^thread 0 waits at __syncthreads \(line \d+\)\n"
         r"thread 40 waits at __syncthreads \(line \d+\)\ncases, block \(0, 0, 0\): deadlock"),
        ("WARP_WITHOUT_LANE", r"^thread 0 waits at __syncwarp \(line \d+\)\n"
         r"thread 3 waits at __syncthreads \(line \d+\)\nthread 4 waits at __syncwarp"),
        ("TOO_FAR", "wrote outside argument 0, at byte 516 of 512"),
        ("DYNAMIC_TOO_FAR", "wrote 28 bytes past the dynamic shared memory"),
        ("RETURNED_LANE", r"load_matrices_x4 \(line \d+\) without lane 7, which has returned"),
    ],
)  # fmt: skip
def test_a_wrong_kernel_is_stopped_and_told_why(step, message):
    with pytest.raises(emulated.EmulationError, match=message):
        case(step)


def test_a_copy_is_there_when_its_group_was_waited_for():
    y = 4 * THREAD + 1
    waited = case("WAIT")
    assert waited[:64].tolist() == np.where(THREAD % 2, y, 0).tolist()
    assert (waited[64:] == POISON).all()
    assert (case("NO_WAIT") == POISON).all()


def test_lanes_exchange_as_the_manual_says():
    first = THREAD // 32 * 32
    expected = THREAD // 8 * 8 + 5
    expected = expected * 64 + np.where(THREAD % 16, THREAD - 1, THREAD)
    expected = expected * 64 + np.where(THREAD % 32 < 29, THREAD + 3, THREAD)
    expected = expected * 64 + (first + (THREAD % 32 ^ 9))
    assert case("SHUFFLE")[:64].tolist() == expected.tolist()

    odd = THREAD % 2 == 1
    votes = np.where(THREAD < 32, 0xAAAAAA00, 0xAAAAAAAA)
    found = case("VOTE")
    assert found[:64].tolist() == np.where(odd, votes, 77).tolist()
    assert found[64:].tolist() == np.where(odd, np.where(THREAD < 32, 3, 1), 77).tolist()


def test_arithmetic_is_that_of_the_manual():
    x, y = [25, 32, 64, 128], [152, 186, 220, 254]  # bytes of 0x80402019, 0xfedcba98
    signed_x, signed_y = ([byte - 256 * (byte > 127) for byte in of] for of in (x, y))
    sums = [5 + int(np.dot(*of)) for of in ((signed_x, signed_y), (x, y), (x, signed_y))]
    bits_moved = [0x98040201, 0xEDCBA988, 0x98804020, 0xFE199880]
    expected = [*bits_moved, *sums, 3224, 4, 196, 3]
    assert case("ARITHMETIC")[:11].tolist() == [value % 2**32 for value in expected]


def test_matrices_are_dealt_to_lanes_as_the_manual_says():
    lane = THREAD % 32
    rows = [(8 * i + lane // 4 + 1) % 32 for i in range(4)]  # a quad a row, its words 4*row + ...
    words = [4 * row + lane % 4 for row in rows]
    pair = [4 * (8 * i + lane // 4) + lane % 4 for i in range(2)]
    found = case("MATRIX")
    assert found[:64].tolist() == sum(10**i * word for i, word in enumerate(words)).tolist()
    assert found[64:].tolist() == (pair[0] + 10 * pair[1]).tolist()


def test_sanitizers_see_what_a_kernel_touches():
    for step in ("BARRIER", "WAIT", "SHUFFLE", "MATRIX"):
        np.testing.assert_array_equal(case(step, checked=True), case(step))
    for step, what in (
        ("TOO_FAR", "use-after-poison"),
        ("DYNAMIC_TOO_FAR", "use-after-poison"),
        ("LOCAL_TOO_FAR", "stack-buffer-overflow"),
    ):
        with pytest.raises(emulated.EmulationError, match=f"AddressSanitizer: {what}"):
            case(step, checked=True)
