"""One launch of each CUDA kernel on the emulation, against integers in NumPy.

Every array of a launch lies between guard zones; what a kernel is to write is poisoned before.
"""

import numpy as np

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


# ---------------------------------------------------------- codes of more bits, convolutions


def planes_of(codes, count):
    """Bit planes, the lowest first: (...) -> (count, ...) booleans."""
    return np.stack([codes >> i & 1 != 0 for i in range(count)])


def levels_among(rng, d, bits, shape):
    """Limits of codes of `bits` bits, (*shape[:-1], levels, shape[-1]), the largest first."""
    limit = limits_among(rng, d, (*shape[:-1], 2**bits - 1, shape[-1]))
    return np.ascontiguousarray(np.sort(limit, axis=-2)[..., ::-1, :])


def check_code_planes(launch, defines, shape):
    """Codes of (M, N) outputs from the products of planes."""
    m, n = shape
    a_bits, w_bits, bits = (defines[f"{operand}_BITS"] for operand in ("INPUT", "WEIGHT", "OUTPUT"))
    rng, k = np.random.default_rng(shape), 37
    a, w = (rng.integers(0, 2**b, (rows, k)) for b, rows in ((a_bits, m), (w_bits, n)))
    a_planes, w_planes = planes_of(a, a_bits), planes_of(w, w_bits)
    s = np.einsum("imk,jnk->mijn", 2 * a_planes - 1, 2 * w_planes - 1)
    s = np.ascontiguousarray(s, np.int32)
    d = np.einsum("mijn,i,j->mn", (k - s) // 2, 2 ** np.arange(a_bits), 2 ** np.arange(w_bits))
    limit = levels_among(rng, d, bits, (n,))
    expected = rows_of(planes_of((d[:, None] <= limit).sum(axis=1), bits).swapaxes(0, 1))
    cw = expected.shape[-1]
    out, before = poisoned(expected.shape, np.uint32), rng.integers(0, 100, (m, bits))
    ones = before.astype(np.int32)
    base = k * (2**a_bits - 1) * (2**w_bits - 1)
    launch((*blocks((cw, 8)), m), (256,), [s, limit, out, ones, *map(np.int32, (n, cw, base))])
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(ones - before, np.bitwise_count(expected).sum(axis=2))


def patches_of(padded):
    """(B, H + 2, S + 2, C) -> (B, H, S, 9 * C): the taps row by row, of each its channels."""
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    b, h, s, c = windows.shape[:4]
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(b, h, s, 9 * c)


def around(images):
    """(B, H, S, C) with zeros around the images."""
    return np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))


def check_layer(launch, d, operands, sizes, defines, *, classes):
    """A layer whose counts are d (B, H, S, N): its codes by limits, in windows with POOL."""
    pool, of_output = "POOL" in defines, defines.get("OUTPUT_BITS", 1)
    b, h, s, n = d.shape
    rng = np.random.default_rng(d.shape)
    of_pixel = rng.integers(0, classes, h * s).astype(np.int32)
    limit = levels_among(rng, d, of_output, (classes, n))
    codes = (d[:, :, :, None] <= limit[of_pixel].reshape(h, s, -1, n)).sum(axis=3)
    flip = rng.random(n) < 0.5
    if pool:
        h, s = h // 2, s // 2
        windows = codes[:, : 2 * h, : 2 * s].reshape(b, h, 2, s, 2, n)
        codes = np.where(flip, windows.min(axis=(2, 4)), windows.max(axis=(2, 4)))
    expected = rows_of(planes_of(codes, of_output).swapaxes(0, 1))
    ow = expected.shape[-1]
    out, before = poisoned(expected.shape, np.uint32), rng.integers(0, 100, (b, of_output))
    ones = before.astype(np.int32) if n % 2 else None
    arguments = [*operands, out, ones, limit, of_pixel if classes > 1 else None,
                 rows_of(flip) if pool else None, *map(np.int32, (*sizes, ow))]  # fmt: skip
    launch(blocks((ow, 2), (b * h * s * (4 if pool else 1), 64)), (256,), arguments)
    np.testing.assert_array_equal(out, expected)
    if ones is not None:
        np.testing.assert_array_equal(ones - before, np.bitwise_count(expected).sum(axis=(2, 3, 4)))


def check_convolution(launch, defines, shape):
    """Of (B, H, S) images and N columns; channels do not fill their words."""
    b, h, s, n = shape
    rng = np.random.default_rng(shape)
    channels = 32 * defines["CW"] - 5
    a = rng.random((defines.get("INPUT_BITS", 1), b, h, s, channels)) < 0.5
    w = rng.random((defines.get("WEIGHT_BITS", 1), n, 9, channels)) < 0.5
    d = np.zeros((b, h, s, n), np.int64)
    # popc(a ^ w) of each plane with each, where padding counts as 0 bits
    for i, plane in enumerate(a):
        rows = patches_of(around(plane)).reshape(b * h * s, -1)
        for j, flat in enumerate(w.reshape(len(w), n, -1)):
            both = rows.astype(np.float32) @ flat.T.astype(np.float32)
            differ = rows.sum(axis=1)[:, None] + flat.sum(axis=1) - 2 * both.astype(np.int64)
            d += differ.reshape(d.shape) << i + j
    images = np.ascontiguousarray(rows_of(a).swapaxes(0, 1))
    check_layer(launch, d, [images, rows_of(w)], shape, defines, classes=4)


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
    # Bytes are of any number of bits.
    of_weight = defines.get("WEIGHT_BITS", 1) if "PLANES" in defines else 3
    codes = rng.integers(0, 2**of_weight, (n, k))
    w = 2 * codes - (2**of_weight - 1)
    d = -rows @ w.T
    if "PLANES" in defines:
        d += 255 * codes.sum(axis=1)
        words = bits.pack(planes_of(codes, of_weight))
    else:
        words = np.pad((-w).astype(np.int8), ((0, 0), (0, -k % 4))).view(np.uint32)
    sizes = (b, h, s, k, n, words.shape[-1])
    check_layer(launch, d, [x, words], sizes, defines, classes=4 if "CHANNELS" in defines else 1)


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
    for actual, expected in ((w, right), (m, right_m), (v, right_v)):
        np.testing.assert_allclose(actual, expected, 1e-5, 1e-6)
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

    def sums(*arrays):
        return np.array([[x[group].sum(0, np.float64) for x in arrays] for group in groups])

    mean, inv = p.mean(0, np.float64), 1 / np.sqrt(p.var(0, dtype=np.float64) + eps)
    line = np.array([mean, gamma * inv, beta, inv], np.float32)
    y = (p - line[0]) * line[1] + line[2]
    g_y = np.where(np.abs(y) <= limit, g, 0)
    x = (p - mean) * inv
    right = gamma * inv * (g_y - g_y.mean(0) - x * (g_y * x).mean(0))
    along, total = (g_y * x).sum(0), g_y.sum(0)
    k2 = -gamma * inv * inv * along / r
    factors = np.array([gamma * inv, -gamma * inv * total / r - k2 * mean, k2, along, total])
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
