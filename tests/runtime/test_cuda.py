"""The wrapper of the CUDA kernels: what it refuses, what it chooses, what it launches."""

import numpy as np
import pytest
from emulated_device import EmulatedDevice
from packed_networks import NETWORKS, packed_model, pixels_for

from bnnrun import runtime
from bnnrun.config import Device, FirstLayer, Kernel
from bnnrun.errors import InputError
from bnnrun.gemm import bits, cuda, cuda_device, reference
from bnnrun.gemm.cuda import VARIANTS, Xnor
from bnnrun.runtime import Classifier

TURING, HOPPER, BLACKWELL = (7, 5), (9, 0), (10, 0)
ODD = [(1, 1, 1), (5, 3, 33), (130, 70, 129), (3, 200, 513)]


def signs(rows, k, seed=0):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), (rows, k))


@pytest.fixture(params=VARIANTS)
def xnor(request):
    return Xnor(EmulatedDevice(HOPPER), request.param)


def operands(xnor, m, n, k):
    a, w = signs(m, k), signs(n, k, 1)
    return xnor.encode(bits.pack(a), k), xnor.encode(bits.pack(w), k), a.astype(int) @ w.T


def test_a_kernel_that_the_device_has_not_is_refused():
    for kernel in VARIANTS:
        assert Xnor(EmulatedDevice(HOPPER), kernel).kernel == kernel
    with pytest.raises(ValueError, match=r"capability 8.0 to 9.0, this is 7.5"):
        Xnor(EmulatedDevice(TURING), "xnor_gemm_mma")
    with pytest.raises(ValueError, match=r"capability 9.0 to 9.0, this is 10.0"):
        Xnor(EmulatedDevice(BLACKWELL), "xnor_gemm_wgmma")
    with pytest.raises(ValueError, match="kernel fast: expected"):
        Xnor(EmulatedDevice(HOPPER), "fast")


@pytest.mark.parametrize("shape", ODD, ids=str)
def test_products_of_any_shape(xnor, shape):
    m, n, k = shape
    a, w, s = operands(xnor, m, n, k)
    np.testing.assert_array_equal(xnor.multiply(a, w), s)
    np.testing.assert_array_equal(xnor.multiply(a, w, "int16"), s)
    scale, shift = np.random.default_rng(2).normal(size=(2, n)).astype(np.float32)
    actual = xnor.multiply(a, w, "float32", scale, shift)
    exact = s * scale.astype(np.float64) + shift
    np.testing.assert_array_equal(actual, exact.astype(np.float32))
    t = s[m // 2].astype(np.int32)
    out = xnor.multiply_to_bits(a, w, bits.popcount_thresholds(t, k))
    np.testing.assert_array_equal(
        out.data[:, : bits.words(n)], reference.threshold(s, t, np.zeros(n, bool))
    )
    assert not out.data[:, bits.words(n) :].any()
    np.testing.assert_array_equal(out.ones, (s >= t).sum(axis=1))
    # A product's bits are the next product's rows, without a detour.
    following = xnor.encode(bits.pack(signs(4, n, 3)), n)
    np.testing.assert_array_equal(
        xnor.multiply(out, following), np.where(s >= t, 1, -1) @ signs(4, n, 3).T.astype(int)
    )


def test_launch_sizes():
    xnor = Xnor(EmulatedDevice(TURING))
    a, w, _ = operands(xnor, 129, 65, 40)
    xnor.multiply(a, w)
    xnor.multiply_to_bits(a, w, np.zeros(65, np.int32))
    sums, to_bits = xnor.device.launches
    assert (sums.grid, sums.block, sums.shared_bytes) == ((2, 2), 256, 0)
    assert sums.defines == (("OUT", "INT32"),)
    assert to_bits.grid == (2, 2)  # four words of 32 columns
    for kernel, grid, shared_bytes in (
        ("xnor_gemm_mma", (3, 2), 98_304),
        ("xnor_gemm_wgmma", (2, 2), 196_608),
    ):
        xnor = Xnor(EmulatedDevice(HOPPER), kernel)
        a, w, _ = operands(xnor, 129, 257, 40)
        xnor.multiply(a, w)
        xnor.multiply_to_bits(a, w, np.zeros(257, np.int32))
        for launch in xnor.device.launches:
            assert (launch.kernel, launch.block) == (kernel, 256)
            assert (launch.grid, launch.shared_bytes) == (grid, shared_bytes)


def test_scalars_have_the_kernel_s_own_types():
    """A Python int would be passed as 64 bits."""
    xnor = Xnor(EmulatedDevice(HOPPER))
    a, w, _ = operands(xnor, 3, 3, 3)
    xnor.multiply(a, w)
    for argument in xnor.device.launches[0].arguments:
        assert argument is None or isinstance(argument, np.ndarray | np.int32)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8, np.bool_])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (9, 33), (130, 128), (3, 513)], ids=str)
def test_packing(dtype, transposed, shape):
    xnor = Xnor(EmulatedDevice(TURING))
    rng = np.random.default_rng(0)
    x = (
        rng.integers(-2, 3, shape).astype(dtype)
        if dtype != np.uint8
        else rng.integers(0, 3, shape, dtype=np.uint8)
    )
    expected = bits.pack(x if np.dtype(dtype).kind in "fi" else x != 0)
    operand = np.ascontiguousarray(x.T) if transposed else x
    actual = xnor.pack(operand, transposed=transposed)
    assert (actual.k, actual.rows) == (shape[1], shape[0])
    np.testing.assert_array_equal(actual.data[:, : expected.shape[1]], expected)
    assert not actual.data[:, expected.shape[1] :].any()
    np.testing.assert_array_equal(actual.ones, np.bitwise_count(expected).sum(axis=1))
    # Into memory that held something else.
    buffer = xnor.empty_bits(*shape)
    buffer.data[...], buffer.ones[...] = 0xA5A5A5A5, 7
    assert xnor.pack(operand, transposed=transposed, out=buffer) is buffer
    np.testing.assert_array_equal(buffer.data, actual.data)
    np.testing.assert_array_equal(buffer.ones, actual.ones)


def test_zero_is_plus_one_and_no_number_is_not():
    xnor = Xnor(EmulatedDevice(TURING))
    x = np.array([[0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan]], np.float32)
    assert xnor.pack(x).data[0, 0] == 0b0010111


def test_the_baseline_is_the_float_product():
    device = EmulatedDevice(TURING)
    a, w = signs(37, 50).astype(np.float32), signs(20, 50, 1).astype(np.float32)
    out = device.empty((37, 20), np.float32)
    cuda.baseline(device, a, w, out)
    np.testing.assert_array_equal(out, a @ w.T)


def test_operands_that_are_not_of_one_product_are_refused(xnor):
    a, w, _ = operands(xnor, 4, 6, 100)
    other = xnor.encode(bits.pack(signs(6, 90)), 90)
    thresholds = np.zeros(6, np.int32)
    wrong = {
        "A has rows of 100": lambda: xnor.multiply(a, other),
        "A is int64": lambda: xnor.multiply(cuda.Bits(a.data.astype(np.int64), a.ones, 100), w),
        "A is strided": lambda: xnor.multiply(
            cuda.Bits(np.repeat(a.data, 2, axis=0)[::2], a.ones, 100), w
        ),
        "ones of W is int32 .3,.": lambda: xnor.multiply(a, cuda.Bits(w.data, w.ones[:3], 100)),
        "dtype int8": lambda: xnor.multiply(a, w, "int8"),
        "needs both": lambda: xnor.multiply(a, w, "float32", thresholds.astype(np.float32)),
        "thresholds is int64": lambda: xnor.multiply_to_bits(a, w, thresholds.astype(np.int64)),
        "thresholds is int32 .5,.": lambda: xnor.multiply_to_bits(a, w, thresholds[:5]),
        "out is uint32": lambda: xnor.multiply_to_bits(a, w, thresholds, xnor.empty_bits(3, 6)),
        "out is uint32 .3, 4.": lambda: xnor.pack(
            np.zeros((2, 2), np.float32), out=xnor.empty_bits(3, 2)
        ),
        "x is float64": lambda: xnor.pack(np.zeros((2, 2))),
        "x is strided": lambda: xnor.pack(np.zeros((4, 4), np.float32)[:, ::2]),
    }
    for message, call in wrong.items():
        with pytest.raises(ValueError, match=message):
            call()
    assert not xnor.device.launches


def test_sums_that_int16_cannot_hold_are_refused(xnor):
    a, w, _ = operands(xnor, 1, 1, 32_768)
    with pytest.raises(ValueError, match="K is 32768"):
        xnor.multiply(a, w, "int16")


def test_arrays_of_another_device_are_refused(xnor, monkeypatch):
    a, w, _ = operands(xnor, 2, 2, 2)
    monkeypatch.setattr(xnor.device, "owns", lambda array: array is not w.data)
    with pytest.raises(ValueError, match="W does not lie on this device"):
        xnor.multiply(a, w)


def test_more_rows_than_a_grid_takes_are_refused():
    images = np.empty((0, 32, 32, 4), np.uint32)
    many = np.lib.stride_tricks.as_strided(images, (70_000, 1, 32, 32, 4), (0, 0, 0, 0, 4))
    with pytest.raises(ValueError, match="xnor_conv: 1120000 blocks"):
        cuda.convolution(many, images, images, None, np.zeros((1, 3)), None, None, pool=False)


def test_more_words_than_offsets_reach_are_refused():
    """Within the grid, past 32 bits: a kernel would read elsewhere."""
    images = np.empty((0, 32, 32, 4), np.uint32)
    for planes, words in ((1, 1049), (1, 4096), (2, 528)):
        shape = (2000, planes, 32, 32, words)
        many = np.lib.stride_tricks.as_strided(images, shape, (0, 0, 0, 0, 4))
        with pytest.raises(ValueError, match=r"xnor_conv: images of .* 32-bit offsets"):
            cuda.convolution(many, images, images, None, np.zeros((1, 3)), None, None, pool=False)


@pytest.fixture
def emulated_gpu(monkeypatch):
    monkeypatch.setattr(cuda_device, "missing", lambda: None)
    monkeypatch.setattr(cuda_device, "CudaDevice", lambda: EmulatedDevice(HOPPER))


def test_a_classifier_on_a_gpu_answers_as_on_the_processor(emulated_gpu):
    model = packed_model(*NETWORKS["five inputs"])
    pixels = pixels_for(model, 4)
    on_gpu = Classifier(model, Kernel.xnor, FirstLayer.auto, Device.cuda)
    on_cpu = Classifier(model, Kernel.xnor, FirstLayer.auto)
    np.testing.assert_array_equal(on_gpu.scores(pixels), on_cpu.scores(pixels))
    assert (on_gpu.device, on_cpu.device, on_cpu.gpu) == ("cuda", "cpu", None)
    assert on_gpu.gpu["model"] == "emulated"


def test_what_is_asked_for_decides_the_device(emulated_gpu, monkeypatch):
    assert runtime.select_device(Device.auto, Kernel.xnor) == (Device.cuda, None)
    assert runtime.select_device(Device.cpu, Kernel.xnor) == (Device.cpu, None)
    assert runtime.select_device(Device.auto, Kernel.reference) == (Device.cpu, None)
    monkeypatch.setattr(cuda_device, "missing", lambda: "no GPU: no driver")
    assert runtime.select_device(Device.auto, Kernel.xnor) == (Device.cpu, "no GPU: no driver")
    assert runtime.select_device(Device.cuda, Kernel.xnor) == (Device.cuda, None)
    model = packed_model(*NETWORKS["one unit"])
    with pytest.raises(InputError, match="device=cuda: no GPU: no driver"):
        Classifier(model, Kernel.xnor, FirstLayer.auto, Device.cuda)
    with pytest.raises(InputError, match="kernel=reference device=cuda"):
        Classifier(model, Kernel.reference, FirstLayer.auto, Device.cuda)


@pytest.mark.parametrize(
    "name", [*VARIANTS, "xnor_conv", "first_layer", "code_planes", "pack_bits"]
)
def test_a_kernel_s_text_is_found(name):
    assert f"\n{name} -- " in cuda_device.source(name)


def test_a_kernel_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match=r"kernels/nothing\.cu"):
        cuda_device.source("nothing")
