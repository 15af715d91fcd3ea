"""The bit layout, and the product of ±1 matrices held as bits, against plain NumPy."""

import numba
import numpy as np
import pytest

from bnnrun.gemm import bits, cpu, reference, xnor
from bnnrun.gemm.compiled import set_threads, thread_count

# M, N and K each take each of 1, 2, 31, 32, 33, 63, 65, 127, 255, 257, 511, 513, 784, 1152, 4097.
SHAPES = [
    (1, 1, 1), (2, 31, 4097), (31, 4097, 2), (4097, 2, 31), (32, 33, 1152), (33, 1152, 63),
    (1152, 63, 32), (63, 65, 784), (65, 784, 33), (784, 32, 65), (127, 255, 513), (255, 513, 127),
    (513, 127, 255), (257, 511, 257), (511, 257, 511),
]  # fmt: skip
# Words of a row around the carry-save tree (16) and around what a byte can count (31 · 16).
LENGTHS = [27, 480, 512, 544, 640, 15_840, 15_872, 15_904, 16_000, 20_000]


@pytest.fixture
def threads():
    """Sets the number of threads, and sets it back."""
    before = thread_count()
    yield set_threads
    set_threads(before)


def signs(x):
    """±1 of real numbers, by definition."""
    return np.where(x >= 0, 1.0, -1.0)


def words_of(positive):
    """(rows, K) booleans as words: bit j of a word counts 2^j."""
    rows, k = positive.shape
    padded = np.zeros((rows, -(-k // 32) * 32), np.int64)
    padded[:, :k] = positive
    return (padded.reshape(rows, -1, 32) @ 2 ** np.arange(32)).astype(np.uint32)


def operands(m, n, k, seed=0):
    """±1 matrices as float64."""
    rng = np.random.default_rng([seed, m, n, k])
    return tuple(signs(rng.normal(size=(rows, k))) for rows in (m, n))


def encoded(a, w):
    """The operands as the kernels read them."""
    panels = xnor.encode_weights(words_of(w > 0))
    rows = xnor.empty_rows(len(a), panels.row)
    packed = words_of(a > 0)
    rows[: len(a), : packed.shape[1]] = packed
    return rows, panels


def thresholds_of(t, k, panels):
    """The popcount thresholds of s >= t in every column of the panels."""
    thresholds = np.full(panels.width, -1, np.int32)
    thresholds[: len(t)] = bits.popcount_thresholds(t, k)
    return thresholds


def xnor_sums(a, w):
    """A · Wᵀ by the kernels, in a buffer that held something else."""
    rows, panels = encoded(a, w)
    out = np.full((len(rows), panels.width), 0x5A5A5A5A, np.int32)
    xnor.multiply(rows, len(a), panels, np.full(panels.width, a.shape[1], np.int32), out)
    return out[: len(a), : len(w)]


def xnor_bits(a, w, t):
    """Bits of A · Wᵀ >= t by the kernels, in a buffer whose bits of columns were 1."""
    rows, panels = encoded(a, w)
    out = xnor.empty_rows(len(a), bits.words(len(w)))
    out.view(np.uint16)[:, : panels.width // 16] = 0xFFFF
    thresholds = thresholds_of(t, a.shape[1], panels)
    xnor.multiply_to_bits(rows, len(a), panels, thresholds, out)
    return out[: len(a)]


def test_element_j_is_bit_j_mod_32_of_word_j_div_32():
    for j in (0, 1, 7, 8, 31, 32, 33, 63, 64, 69):
        x = -np.ones(70, np.float32)
        x[j] = 1
        expected = [0, 0, 0]
        expected[j // 32] = 1 << (j % 32)
        assert bits.pack(x).tolist() == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8])
def test_what_is_not_negative_is_bit_1_and_the_tail_is_0(dtype):
    x = np.array([0, -1, 1, -128, 127, 0, -1], dtype)
    assert bits.pack(x).tolist() == [0b0110101]
    assert bits.pack(np.zeros(33, dtype)).tolist() == [2**32 - 1, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_zeros_are_bit_1_and_the_smallest_negative_number_is_0(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    assert bits.pack(np.array([0.0, -0.0, tiny, -tiny], dtype)).tolist() == [0b0111]


def test_true_is_bit_1():
    assert bits.pack(np.array([True, False, False, True])).tolist() == [0b1001]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.complex64], ids=lambda d: d.__name__)
def test_what_has_no_sign_is_refused(dtype):
    with pytest.raises(TypeError, match=f"{dtype.__name__} has no sign"):
        bits.pack(np.zeros(8, dtype))


@pytest.mark.parametrize("k", [1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 100])
def test_unpacking_is_the_inverse_for_any_leading_axes(k):
    x = np.random.default_rng(k).normal(size=(2, 3, 5, k))
    packed = bits.pack(x)
    assert packed.dtype == np.uint32
    assert packed.shape == (2, 3, 5, -(-k // 32))
    np.testing.assert_array_equal(packed.reshape(30, -1), words_of(x.reshape(30, k) >= 0))
    assert bits.clean_tail(packed, k)
    for turned, expected in ((packed, x), (packed.swapaxes(0, 2), x.swapaxes(0, 2))):
        plus_minus = bits.unpack(turned, k)
        assert plus_minus.dtype == np.int8
        np.testing.assert_array_equal(plus_minus, signs(expected))
        np.testing.assert_array_equal(bits.unpack_bits(turned, k), expected >= 0)


def test_a_view_with_strides_is_packed_as_its_copy():
    x = np.random.default_rng(0).normal(size=(70, 6))
    np.testing.assert_array_equal(bits.pack(x.T[::2]), bits.pack(x.T[::2].copy()))


@pytest.mark.parametrize("shape", [(0, 40), (3, 0), (0, 0), (2, 0, 33)], ids=str)
def test_no_rows_and_rows_of_nothing_are_packed(shape):
    packed = bits.pack(np.zeros(shape, np.float32))
    assert packed.shape == (*shape[:-1], -(-shape[-1] // 32))
    assert bits.unpack(packed, shape[-1]).shape == shape


def test_a_bit_past_the_end_of_any_row_is_found():
    packed = bits.pack(np.ones((3, 40)))
    assert bits.clean_tail(packed, 40)
    packed[1, 1] |= np.uint32(1 << 8)
    assert not bits.clean_tail(packed, 40)
    assert bits.clean_tail(packed[:, :1], 32)


@pytest.mark.parametrize(
    ("n", "used", "kw"), [(1, 1, 4), (16, 4, 4), (17, 3, 8), (40, 5, 8), (33, 0, 4)]
)
def test_panels_hold_sixteen_rows_side_by_side_word_by_word(n, used, kw):
    rows = np.random.default_rng(n).integers(1, 2**32, (n, used), dtype=np.uint32)
    panels = bits.to_panels(rows, kw)
    assert panels.shape == (-(-n // 64) * 4, kw, 16)
    assert panels.ctypes.data % 64 == 0
    for (p, word, lane), value in np.ndenumerate(panels):
        row = 16 * p + lane
        assert value == (rows[row, word] if row < n and word < used else 0)


@pytest.mark.parametrize(("m", "n", "k"), SHAPES, ids=str)
def test_the_product_is_that_of_the_plus_and_minus_ones(m, n, k):
    a, w = operands(m, n, k)
    np.testing.assert_array_equal(xnor_sums(a, w), a @ w.T)


@pytest.mark.parametrize(("m", "n", "k"), SHAPES, ids=str)
def test_the_definition_is_the_product_too(m, n, k):
    a, w = operands(m, n, k)
    s = reference.multiply(words_of(a > 0), words_of(w > 0), k)
    assert s.dtype == np.int32
    np.testing.assert_array_equal(s, a @ w.T)


@pytest.mark.parametrize(("m", "n", "k"), SHAPES, ids=str)
def test_the_bits_are_those_of_the_sums_at_their_thresholds(m, n, k):
    a, w = operands(m, n, k)
    s = (a @ w.T).astype(np.int64)
    rng = np.random.default_rng(k)
    # A sum of the column itself, and one beside it, which no sum of its parity can equal.
    t = s[rng.integers(0, m, n), np.arange(n)] + rng.integers(-1, 2, n)
    expected = words_of(s >= t)
    np.testing.assert_array_equal(xnor_bits(a, w, t), expected)
    np.testing.assert_array_equal(
        reference.threshold(s.astype(np.int32), t.astype(np.int32), np.zeros(n, bool)), expected
    )


@pytest.mark.parametrize("k", LENGTHS)
def test_rows_of_any_length_have_their_sums(k):
    a, w = operands(5, 17, k)
    np.testing.assert_array_equal(xnor_sums(a, w), a @ w.T)


@pytest.mark.parametrize("k", [1, 31, 33, 513, 784, 1152, *LENGTHS])
def test_equal_rows_sum_to_k_and_opposite_ones_to_minus_k(k):
    """Opposite rows fill every counter as far as it is ever filled."""
    one = signs(np.random.default_rng(k).normal(size=k))
    a = np.stack([one, -one, one, one, -one, np.ones(k), -np.ones(k)])
    w = np.concatenate([a, -a, a])
    s = xnor_sums(a, w)
    np.testing.assert_array_equal(s, a @ w.T)
    assert s[0, 0] == s[5, 5] == k
    assert s[0, 1] == s[5, 6] == -k


@pytest.mark.parametrize("k", [1, 27, 32, 784, 20_000])
def test_thresholds_at_ties_beside_them_and_beyond_the_sums(k):
    rng = np.random.default_rng(k)
    a = signs(rng.normal(size=(6, k)))
    a[4], a[5] = 1, -1
    extremes = np.iinfo(np.int32)
    middle = int(a[0].sum())
    t = np.array([
        middle, middle - 1, middle + 1, middle - 2, middle + 2,
        k, k - 1, k + 1, k + 2, -k, -k - 1, -k + 1, -k - 2, 0, 1, -1,
        3 * k, -3 * k, extremes.max, extremes.min, extremes.max - 1, extremes.min + 1,
    ])  # fmt: skip
    w = np.ones((len(t), k))
    expected = (a @ w.T) >= t
    assert expected[4, t == k].all() and not expected[4, t == k + 1].any()
    np.testing.assert_array_equal(xnor_bits(a, w, t), words_of(expected))


def test_thresholds_past_what_32_bits_hold_are_never_or_always_met():
    t = np.array([2**40, -(2**40), 101, 100, 99, -100, -101])
    thresholds = bits.popcount_thresholds(t, 100)
    assert thresholds.dtype == np.int32
    assert thresholds.tolist() == [-1, 2**30, -1, 0, 0, 100, 100]


def test_a_flipped_threshold_of_the_definition_asks_for_at_most():
    s = np.array([[-2, -2, 0, 0, 2, 2]], np.int32)
    t = np.zeros(6, np.int32)
    flip = np.array([False, True] * 3)
    assert reference.threshold(s, t, flip).tolist() == [[0b011110]]


def test_the_definition_is_exact_past_what_float32_counts():
    a = np.array([[2**24, 1, 1]])
    w = np.array([[1, 1, -1], [1, 1, 1], [-1, -1, -1], [-1, 1, -1]], np.int8)
    s = reference.integer_product(a, w, 2**24 + 2)
    assert s.tolist() == [[2**24, 2**24 + 2, -(2**24) - 2, -(2**24)]]
    assert reference.integer_product(a[:, :2], w[1:2, :2], 2**24 + 1).tolist() == [[2**24 + 1]]


@pytest.mark.parametrize("task_panels", [1, 3, 100])
def test_the_answer_does_not_depend_on_threads_or_tasks(threads, monkeypatch, task_panels):
    monkeypatch.setattr(xnor, "task_panels", lambda m, panels: task_panels)
    a, w = operands(77, 100, 784)
    s = (a @ w.T).astype(np.int64)
    for count in (1, 2, 1, 0):
        threads(count)
        for _ in range(2):
            np.testing.assert_array_equal(xnor_sums(a, w), s)
            np.testing.assert_array_equal(xnor_bits(a, w, s[5]), words_of(s >= s[5]))


def test_threads_are_those_asked_for_as_far_as_there_are_cores(threads):
    threads(1)
    assert thread_count() == numba.get_num_threads() == 1
    threads(100_000)
    assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS


@pytest.mark.parametrize("m", [1, 5, 1000, 100_000])
@pytest.mark.parametrize("panels", [1, 7, 256])
def test_every_thread_gets_a_task_where_there_are_panels_enough(m, panels, threads):
    threads(2)
    task_panels = xnor.task_panels(m, panels)
    assert task_panels % bits.TILE_PANELS == 0
    groups = -(-panels // bits.TILE_PANELS)
    assert -(-m // cpu.BAND_ROWS) * -(-panels // task_panels) >= min(8, groups)


def test_rows_past_those_asked_for_are_left_as_they_are():
    """A network's buffers hold a chunk; its last images fill a part of them."""
    a, w = operands(12, 20, 100)
    rows, panels = encoded(a, w)
    out = np.full((12, panels.width), 7, np.int32)
    xnor.multiply(rows, 5, panels, np.full(panels.width, 100, np.int32), out)
    np.testing.assert_array_equal(out[:5, :20], (a @ w.T)[:5])
    assert (out[5:] == 7).all()


ROWS = np.zeros((8, 4), np.uint32)
NOT_ROWS = {
    "int64": ROWS.astype(np.int64),
    "float32": ROWS.view(np.float32),
    "every second word": np.repeat(ROWS, 2, axis=1)[:, ::2],
    "too few rows": ROWS[:4],
    "a word less": np.ascontiguousarray(ROWS[:, :3]),
    "flat": ROWS.ravel(),
}


@pytest.mark.parametrize("wrong", NOT_ROWS.values(), ids=NOT_ROWS.keys())
def test_rows_that_the_kernels_cannot_read_are_refused(wrong):
    _, panels = encoded(*operands(5, 6, 100))
    base, sums = np.zeros(16, np.int32), np.zeros((8, 16), np.int32)
    with pytest.raises(ValueError, match=r"A is .*: expected contiguous uint32, \(8, 4\) or more"):
        xnor.multiply(wrong, 5, panels, base, sums)
    with pytest.raises(ValueError, match="A is"):
        xnor.multiply_to_bits(wrong, 5, panels, base, ROWS)


@pytest.mark.parametrize("wrong", NOT_ROWS.values(), ids=NOT_ROWS.keys())
def test_buffers_that_the_kernels_cannot_write_are_refused(wrong):
    rows, panels = encoded(*operands(5, 97, 100))
    columns, sums = np.zeros(112, np.int32), np.zeros((8, 112), np.int32)
    with pytest.raises(ValueError, match=r"out is .*: expected contiguous uint32, \(8, 4\)"):
        xnor.multiply_to_bits(rows, 5, panels, columns, wrong)
    with pytest.raises(ValueError, match=r"out is .*: expected contiguous int32, \(8, 112\)"):
        xnor.multiply(rows, 5, panels, columns, sums[:, :111])
    with pytest.raises(ValueError, match=r"base is int32 \(1, 111\)"):
        xnor.multiply(rows, 5, panels, columns[:111], sums)
    with pytest.raises(ValueError, match=r"thresholds is int64 \(1, 112\)"):
        xnor.multiply_to_bits(rows, 5, panels, columns.astype(np.int64), ROWS)


def test_products_of_bytes_are_those_of_numpy():
    """The largest that a first layer has: pixels of 255, weights of four bits, ±15."""
    rng = np.random.default_rng(0)
    for m, n, k in [(1, 1, 1), (5, 17, 27), (7, 130, 1024), (8, 64, 785)]:
        a = rng.choice([0, 1, 254, 255], (m, k)).astype(np.uint8)
        w = rng.choice([-15, -1, 0, 1, 15], (n, k)).astype(np.int8)
        a[0], w[0], w[-1] = 255, 15, -15
        kw = bits.words(8 * k)
        padded = np.zeros((n, 4 * kw), np.int8)
        padded[:, :k] = w
        panels = xnor.Panels(bits.to_panels(padded.view(np.uint32), kw).view(np.int8), n)
        rows = xnor.empty_rows(m, kw)
        rows.view(np.uint8)[:m, :k] = a
        out = np.zeros((len(rows), panels.width), np.int32)
        xnor.multiply(rows, m, panels, np.zeros(panels.width, np.int32), out)
        np.testing.assert_array_equal(out[:m, :n], -2 * (a.astype(np.int64) @ w.T.astype(np.int64)))
