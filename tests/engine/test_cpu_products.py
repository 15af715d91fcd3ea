"""The products of training on the processor, against float64 and integers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bnnrun.architecture import Layer
from bnnrun.engine.cpu import winograd
from bnnrun.engine.cpu.factors import MAX_BATCH, ByteFactors, RealFactors
from bnnrun.engine.cpu.kernels.batched_gemm import batched_gemm
from bnnrun.engine.cpu.kernels.elementwise import adam_kernel
from bnnrun.engine.cpu.kernels.tiles import PLACES
from bnnrun.engine.cpu.packed import PackedFilters, PackedWeights
from bnnrun.gemm import bits, lut_gemm
from bnnrun.gemm.compiled import set_threads, thread_count
from bnnrun.gemm.xnor import row_words

EPS = 2.0**-24  # of float32, by which a rounded sum is off
BF16 = 2.0**-8  # the same of bf16

needs_lookup = pytest.mark.skipif(
    not lut_gemm.HAS_LUT,
    reason="no instruction of this processor chooses among sixteen numbers (AVX-512): torch "
    "multiplies real numbers here",
)

# batch, N, K: single rows and the tile of four rows; the edges of a word, of a panel, of four
# panels, of the tables of one chunk (256); the MNIST network's first and last layer.
SHAPES = [(1, 1, 1), (3, 10, 31), (4, 16, 32), (5, 17, 33), (3, 63, 65), (100, 64, 255),
          (3, 65, 257), (1, 100, 784), (100, 10, 513), (2, 33, 4097)]  # fmt: skip


def signs(x):
    """±1 of real numbers, by definition, in float64."""
    return np.where(np.asarray(x) >= 0, 1.0, -1.0)


def weights(n, k, seed=0):
    """(N, K) float32 with each kind of zero and the ends of the clip among them."""
    rng = np.random.default_rng([seed, n, k])
    w = rng.uniform(-1, 1, (n, k)).astype(np.float32)
    special = rng.choice(np.array([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45], np.float32), (n, k))
    return np.where(rng.random((n, k)) < 0.2, special, w)


def packed_weights(w):
    packed = PackedWeights(*w.shape)
    packed.pack(torch.from_numpy(w))
    return packed


def as_panels(x):
    """Signs of the rows in whole groups of panels, by the definition of the layout."""
    k = x.shape[1]
    return bits.to_panels(bits.pack(x), row_words(k))


@pytest.mark.parametrize(("n", "k"), [(1, 1), (33, 15), (16, 17), (31, 48), (97, 1040), (64, 2049)])
def test_both_orders_of_bits_are_those_of_w_and_of_its_transpose(n, k):
    """Past a stretch of 1,024 columns too; -0 counts as +1."""
    w = weights(n, k)
    w[0, 0] = -0.0
    packed = packed_weights(w)
    np.testing.assert_array_equal(packed.rows, as_panels(w))
    np.testing.assert_array_equal(packed.columns, as_panels(w.T))
    assert packed.rows[0, 0, 0] & 1 == packed.columns[0, 0, 0] & 1 == 1


@pytest.mark.parametrize("step", [32, 64, 1000])
def test_packed_by_parts_they_are_the_same(step):
    """Whatever bits stood there before."""
    w = weights(101, 77)
    packed = packed_weights(-w)
    for first in range(0, len(w), step):
        packed.pack(torch.from_numpy(w)[first : first + step], first)
    np.testing.assert_array_equal(packed.rows, as_panels(w))
    np.testing.assert_array_equal(packed.columns, as_panels(w.T))


@needs_lookup
@pytest.mark.parametrize(("m", "n", "k"), SHAPES, ids=str)
def test_lut_products_of_real_numbers_are_those_of_float32(m, n, k):
    """Off by a rounding of each of K/4 additions and of the four in a table; whole sums, exact."""
    rng, w = np.random.default_rng(k), weights(n, k)
    packed, q = packed_weights(w), signs(w)
    x = rng.normal(size=(m, k)).astype(np.float32)
    g = rng.normal(size=(m, n)).astype(np.float32)
    pairs = [(packed.lut_product, x, q.T), (packed.backward_product, g, q)]
    for product, real, matrix in pairs:
        whole = np.rint(8 * real).astype(np.float32)
        exact = product(torch.from_numpy(whole)).numpy()
        np.testing.assert_array_equal(exact, whole.astype(float) @ matrix)
        found = product(torch.from_numpy(real)).numpy()
        off = np.abs(found - real.astype(float) @ matrix)
        most = (len(matrix) / 4 + 4) * EPS * np.abs(real.astype(float)).sum(1, keepdims=True)
        assert (off <= most).all()


@needs_lookup
def test_a_lut_product_reads_a_tensor_however_it_lies():
    w = weights(20, 64)
    x = torch.randn(8, 128, generator=torch.Generator().manual_seed(0))[:, ::2]
    expected = packed_weights(w).lut_product(x.contiguous())
    assert torch.equal(packed_weights(w).lut_product(x), expected)


@needs_lookup
@pytest.mark.parametrize("across", [1, 2, 3, 4, 100])
def test_lut_products_do_not_depend_on_how_the_panels_are_shared(across):
    """Three groups of panels; what stood in `out` is written over."""
    rng, w = np.random.default_rng(0), weights(161, 500)
    panels = as_panels(w)
    kw = panels.shape[1]
    x = np.zeros((8, 32 * kw), np.float32)
    x[:, :500] = rng.integers(-9, 10, (8, 500))
    out = np.full((8, 16 * len(panels)), np.nan, np.float32)
    lut_gemm.lut_gemm(x.ravel(), 8, panels.ravel(), kw, across, out.ravel())
    np.testing.assert_array_equal(out[:, :161], x[:, :500].astype(float) @ signs(w).T)


# K: the edges of a word and of four; more words than a byte can count at once (31 · 16).
@pytest.mark.parametrize("k", [1, 31, 32, 33, 127, 128, 513, 4097, 16_900])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_masked_products_are_those_of_integers(k, factor):
    rng = np.random.default_rng(k)
    n, m = (35, 37) if k < 5000 else (17, 5)
    w = weights(n, k)
    a = rng.integers(-1, 2, (m, k))
    a[0], a[1], a[2], a[3] = 0, signs(rng.normal(size=k)), signs(w[0]), -signs(w[0])
    found = packed_weights(w).popcount_product(
        torch.from_numpy((factor * a).astype(np.float32)), factor
    )
    expected = a @ signs(w).astype(np.int64).T
    np.testing.assert_array_equal(found.numpy(), factor * expected)
    assert expected[2, 0] == -expected[3, 0] == k and not expected[0].any()


def test_the_mask_of_dropout_with_any_factor_rounds_once():
    rng, w = np.random.default_rng(0), weights(40, 300)
    a, factor = rng.integers(-1, 2, (9, 300)), np.float32(1 / (1 - 0.3))
    found = packed_weights(w).popcount_product(
        torch.from_numpy(a.astype(np.float32) * factor), factor
    )
    expected = (a @ signs(w).T).astype(np.float32) * factor
    np.testing.assert_array_equal(found.numpy(), expected)


def made_conv(batch, channels, outputs, size, seed=0):
    """(layer, ±1 images, weights), channels last in memory."""
    rng = np.random.default_rng([seed, batch, channels, outputs, *size])
    a = signs(rng.normal(size=(batch, channels, *size))).astype(np.float32)
    w = weights(outputs, 9 * channels, seed).reshape(outputs, channels, 3, 3)
    layer = Layer("conv", channels, outputs, 3, size)
    return layer, *(torch.from_numpy(t).contiguous(memory_format=torch.channels_last)
                    for t in (a, w))  # fmt: skip


def whole_convolution(a, w):
    """By the definition, in whole numbers of float64."""
    return F.conv2d(a.double(), torch.from_numpy(signs(w)), padding=1).float()


@pytest.mark.parametrize("size", [(4, 4), (8, 4), (8, 8)], ids=str)
@pytest.mark.parametrize(("channels", "outputs"), [(16, 64), (48, 16), (64, 48)])
@pytest.mark.parametrize("batch", [1, 5])
def test_popcount_convolutions_are_those_of_whole_numbers(batch, channels, outputs, size):
    layer, a, w = made_conv(batch, channels, outputs, size)
    filters = PackedFilters(layer)
    filters.pack(w)
    assert torch.equal(filters.popcount_product(a), whole_convolution(a, w))


def test_the_memory_of_images_and_filters_is_written_to_again():
    """More images after fewer, fewer after more; other weights in the same filters."""
    layer = made_conv(1, 48, 32, (8, 4))[0]
    filters = PackedFilters(layer)
    for seed, batch in enumerate((2, 7, 3, 1, 7)):
        _, a, w = made_conv(batch, 48, 32, (8, 4), seed)
        filters.pack(w)
        assert torch.equal(filters.popcount_product(a), whole_convolution(a, w))


def convolution_gradients(g_s, a, w):
    """(g_a, g_W) in float64."""
    a, w = (t.double().requires_grad_() for t in (a, w))
    F.conv2d(a, w, padding=1).backward(g_s.double())
    return a.grad, w.grad


def relative(found, expected):
    """How far off, by the norm."""
    return ((found.double() - expected).norm() / expected.norm()).item()


def packed_pair(layer, a, w):
    """What is left of the sums of ±1 for their gradients."""
    filters = PackedFilters(layer)
    filters.pack(w)
    filters.popcount_product(a)
    return winograd.Packed(filters)


# Rows: one, a tile and its edges, a block and its edges. Columns: one vector, a tile, one more.
@pytest.mark.parametrize("m", [1, 7, 8, 13, 64, 65, 140])
@pytest.mark.parametrize("n", [16, 32, 48])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_batched_products_are_those_of_numpy(m, n, is_transposed):
    """Of integers, exact, in either order of `a`; and added to what is there."""
    rng = np.random.default_rng([m, n])
    for depth in (1, 16, 33):
        a = rng.integers(-9, 10, (PLACES, m, depth)).astype(np.float32)
        b = rng.integers(-9, 10, (PLACES, depth, n)).astype(np.float32)
        out, expected = np.full((PLACES, m, n), np.nan, np.float32), a @ b
        flat = np.ascontiguousarray(a.transpose(0, 2, 1) if is_transposed else a).ravel()
        steps = (1, m) if is_transposed else (depth, 1)
        for adds in (False, True):
            batched_gemm(flat, *steps, b.ravel(), m, n, depth, out.ravel(), adds)
            np.testing.assert_array_equal(out, expected * (1 + adds))


def test_batched_products_do_not_depend_on_the_threads():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(PLACES, 200, 48)).astype(np.float32) for _ in range(2))
    found = []
    before = thread_count()
    try:
        for threads in (1, 2):
            set_threads(threads)
            found.append(np.empty((PLACES, 48, 48), np.float32))
            batched_gemm(a.ravel(), 1, 48, b.ravel(), 48, 48, 200, found[-1].ravel(), False)
    finally:
        set_threads(before)
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], a.transpose(0, 2, 1) @ b, rtol=1e-4, atol=1e-4)


def winograd_gradients(g_s, of, w, workspace, *, of_input=True):
    g_w = torch.full_like(w, float("nan"))
    return winograd.gradients(g_s, of, g_w, workspace, of_input=of_input), g_w


@pytest.fixture(params=[True, False], ids=["our products", "torch's products"])
def both_products(request, monkeypatch):
    """Both ways to multiply; ours runs on every processor, and is slow on some."""
    monkeypatch.setattr(winograd, "HAS_BATCHED_GEMM", request.param)


# One image to a chunk, two (the last chunk of five is smaller), all.
@pytest.mark.usefixtures("both_products")
@pytest.mark.parametrize("images", [1, 2, 100])
@pytest.mark.parametrize("size", [(4, 4), (8, 12)], ids=str)
@pytest.mark.parametrize(("channels", "outputs"), [(16, 48), (48, 16)])
def test_winograds_gradients_are_those_of_convolution(monkeypatch, images, size, channels, outputs):
    tiles = size[0] * size[1] // 16
    monkeypatch.setattr(winograd, "TILE_BYTES", images * 4 * 36 * tiles * 48)
    layer, a, w = made_conv(5, channels, outputs, size)
    assert winograd.fits(size, channels, outputs)
    of = packed_pair(layer, a, w)
    g_s = torch.randn(5, outputs, *size, generator=torch.Generator().manual_seed(0))
    g_s = g_s.contiguous(memory_format=torch.channels_last)
    found = winograd_gradients(g_s, of, w, winograd.Workspace())
    expected = convolution_gradients(g_s, a, torch.from_numpy(signs(w)))
    for ours, theirs in zip(found, expected, strict=True):
        assert relative(ours, theirs) < 1e-5 < BF16
    alone, g_w = winograd_gradients(g_s, of, w, winograd.Workspace(), of_input=False)
    assert alone is None
    assert torch.equal(g_w, found[1])


@pytest.mark.usefixtures("both_products")
@pytest.mark.parametrize("images", [1, 2, 100])
@pytest.mark.parametrize("size", [(4, 4), (8, 12)], ids=str)
@pytest.mark.parametrize(("channels", "outputs"), [(16, 48), (48, 16)])
def test_convolutions_of_real_numbers_are_those_of_float64(
    monkeypatch, images, size, channels, outputs
):
    """The product too, and its gradients from numbers instead of bits."""
    tiles = size[0] * size[1] // 16
    monkeypatch.setattr(winograd, "TILE_BYTES", images * 4 * 36 * tiles * 48)
    generator, last = torch.Generator().manual_seed(0), torch.channels_last
    a, w, g_s = (
        torch.randn(*shape, generator=generator).contiguous(memory_format=last)
        for shape in ((5, channels, *size), (outputs, channels, 3, 3), (5, outputs, *size))
    )
    of, workspace = winograd.Real(a, w), winograd.Workspace()
    s = winograd.convolve(of, workspace)
    assert s.is_contiguous(memory_format=last)
    assert relative(s, F.conv2d(a.double(), w.double(), padding=1)) < 1e-5
    found = winograd_gradients(g_s, of, w, workspace)
    for ours, theirs in zip(found, convolution_gradients(g_s, a, w), strict=True):
        assert relative(ours, theirs) < 1e-5
    alone, g_w = winograd_gradients(g_s, of, w, workspace, of_input=False)
    assert alone is None
    assert torch.equal(g_w, found[1])


def test_winograds_memory_is_written_to_again_by_other_shapes():
    workspace = winograd.Workspace()
    generator = torch.Generator().manual_seed(0)
    for batch, size in ((4, (8, 8)), (1, (4, 4)), (3, (8, 4))):
        layer, a, w = made_conv(batch, 32, 16, size)
        g_s = torch.randn(batch, 16, *size, generator=generator)
        g_s = g_s.contiguous(memory_format=torch.channels_last)
        g_a, g_w = winograd_gradients(g_s, packed_pair(layer, a, w), w, workspace)
        expected = convolution_gradients(g_s, a, torch.from_numpy(signs(w)))
        assert relative(g_a, expected[0]) < 1e-5 and relative(g_w, expected[1]) < 1e-5


@pytest.mark.parametrize(
    ("size", "channels", "outputs", "fits"),
    [((4, 4), 16, 16, True), ((6, 4), 16, 16, False), ((4, 7), 16, 16, False),
     ((8, 8), 24, 16, False), ((8, 8), 16, 10, False)],
    ids=str,
)  # fmt: skip
def test_shapes_without_whole_tiles_or_lanes_are_refused(size, channels, outputs, fits):
    assert winograd.fits(size, channels, outputs) is fits


GRADIENT = np.array([0, 1, 0, 0, 0, 1], np.float32)  # of Adam: m <- g, and w stays


def factors(batch, n, k, factor=1.0, seed=0):
    """(g_s, a): gradients of very different sizes by output, ±1 and 0."""
    rng = np.random.default_rng([seed, batch, n, k])
    g_s = rng.normal(size=(batch, n)) * 10.0 ** rng.integers(-6, 3, n)
    a = factor * rng.integers(-1, 2, (batch, k))
    return tuple(torch.from_numpy(t.astype(np.float32)) for t in (g_s, a))


def by_bytes(g_s, a):
    """Of an `a` not all 0."""
    return ByteFactors.of(g_s, a, a.abs().max().item())


def gradient_of(g_s, a, made=by_bytes):
    """The gradient that factors stand for, (N, K) float32."""
    shape = g_s.shape[1], a.shape[1]
    w, m, v = np.zeros((3, *shape), np.float32)
    made(g_s, a).update((w, m, v), GRADIENT, PackedWeights(*shape), clip=False)
    return m


# batch, N, K: single elements; nothing a multiple of anything; past a stretch of 1,024 columns.
FACTORS = [(2, 1, 1), (3, 5, 33), (5, 33, 17), (100, 35, 70), (7, 37, 1061)]


@pytest.mark.parametrize(("batch", "n", "k"), FACTORS, ids=str)
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_gradients_from_bytes_are_off_by_half_a_step_of_each_summand(batch, n, k, factor):
    """A summand by 1/65,024 of its output's largest g_s; g_W by less than 2^-14 of its largest."""
    g_s, a = factors(batch, n, k, factor)
    found, expected = gradient_of(g_s, a), g_s.double().T.numpy() @ a.double().numpy()
    largest = g_s.abs().amax(0).double().numpy()[:, None]
    kept = np.abs(a.double().numpy()).sum(0)
    assert (np.abs(found - expected) <= kept * largest / 65_024 + 4 * EPS * np.abs(expected)).all()
    assert np.abs(found - expected).max() <= 2.0**-14 * np.abs(expected).max()


@pytest.mark.parametrize(("batch", "n", "k"), FACTORS, ids=str)
def test_gradients_from_real_numbers_are_those_of_float64(batch, n, k):
    g_s, a = factors(batch, n, k)
    a = a + torch.randn(batch, k, generator=torch.Generator().manual_seed(0))
    found, (x, y) = gradient_of(g_s, a, RealFactors.of), (t.double().numpy() for t in (g_s, a))
    rounded = (batch + 1) * EPS * (np.abs(x).T @ np.abs(y))
    assert (np.abs(found - x.T @ y) <= rounded).all()


@pytest.mark.parametrize("made", [by_bytes, RealFactors.of])
def test_outputs_without_gradient_get_none(made):
    g_s, a = factors(6, 40, 20)
    g_s[:, ::3] = 0
    a[:, 5] = 0
    found = gradient_of(g_s, a, made)
    assert not found[::3].any() and not found[:, 5].any()
    assert found[1].any()


@pytest.mark.parametrize("batch", [33_000, 40_000, MAX_BATCH])
def test_sums_of_the_largest_minibatch_fit_into_32_bits(batch):
    """All summands alike and as large as they can be."""
    g_s, a = torch.full((batch, 2), 3.0), torch.ones(batch, 16)
    a[:, 1] = -1
    expected = np.full((2, 16), 3.0 * batch)
    expected[:, 1] *= -1
    np.testing.assert_allclose(gradient_of(g_s, a), expected, rtol=1e-6)


@pytest.mark.parametrize(("batch", "n", "k"), FACTORS, ids=str)
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("made", [by_bytes, RealFactors.of])
def test_the_fused_update_is_adams_with_its_own_gradient(batch, n, k, clip, made):
    """To the last bit, and it leaves the signs of the new weights."""
    rng = np.random.default_rng(0)
    g_s, a = factors(batch, n, k)
    w, m = weights(n, k), rng.normal(size=(n, k)).astype(np.float32)
    v = np.square(rng.normal(size=(n, k)).astype(np.float32))
    constants = np.array([0.9, 0.1, 0.999, 0.001, 0.5, 1e-8], np.float32)
    expected = [t.copy() for t in (w, m, v)]
    adam_kernel(expected[0].ravel(), gradient_of(g_s, a, made).ravel(), expected[1].ravel(),
              expected[2].ravel(), constants, clip)  # fmt: skip
    packed = packed_weights(-w)
    made(g_s, a).update((w, m, v), constants, packed, clip=clip)
    for ours, theirs in zip((w, m, v), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(packed.rows, as_panels(w))
    np.testing.assert_array_equal(packed.columns, as_panels(w.T))
    assert k == 1 or (np.abs(w).max() == 1) == clip
