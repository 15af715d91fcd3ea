"""The kernels on a CUDA device: any shape, every output, whole networks, torch's streams."""

import signal

import numpy as np
import pytest
import torch
from command import configure
from packed_networks import FIRSTS, NETWORKS, assert_same, packed_model, pixels_for

from bnnrun.bench.train_step import _check
from bnnrun.config import Estimator
from bnnrun.data import load
from bnnrun.engine.cpu.kernels.elementwise import adam_kernel
from bnnrun.engine.cpu.norm_act import ESTIMATORS, NormAct, PoolNormActivation
from bnnrun.engine.cuda.captured_step import WARM
from bnnrun.engine.cuda.fused import AdamNumbers, FusedKernels, NormSign
from bnnrun.engine.memory import flat
from bnnrun.errors import Stopped
from bnnrun.gemm import bits, cuda, dispatch
from bnnrun.gemm.cuda import VARIANTS, Xnor
from bnnrun.gemm.cuda_device import CudaDevice
from bnnrun.runtime.cuda import CudaNetwork
from bnnrun.train.interrupt import StopRequest
from bnnrun.train.loop import torch_device
from bnnrun.train.trainer import Trainer

pytestmark = pytest.mark.gpu

SIZES = [1, 2, 31, 32, 33, 63, 65, 127, 255, 257, 511, 513, 784, 1152, 4097]
# Each of M, N and K takes each size, the products staying small.
SHAPES = [
    (SIZES[i], SIZES[(4 * i + 1) % 15], SIZES[(7 * i + 3) % 15]) for i in range(len(SIZES))
] + [(1, 4097, 4097), (4097, 1, 1), (129, 129, 1025), (128, 128, 1024), (1000, 10, 4096)]


@pytest.fixture(scope="module")
def device():
    return CudaDevice()


@pytest.fixture(params=VARIANTS)
def xnor(request, device):
    variant = VARIANTS[request.param]
    if not variant.min_capability <= device.capability <= variant.max_capability:
        pytest.skip(f"{request.param} is not for compute capability {device.capability}")
    return Xnor(device, request.param)


def test_the_fastest_kernel_passes_its_trial(device, tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "_verdicts", {})
    monkeypatch.setattr(device, "cache", tmp_path)
    has = [
        name
        for name, variant in VARIANTS.items()
        if variant.min_capability <= device.capability <= variant.max_capability
    ]
    assert list(dispatch.variants(device)) == has


def signs(rows, k, seed):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), (rows, k))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_of_any_shape(xnor, device, shape):
    m, n, k = shape
    x, y = signs(m, k, 0), signs(n, k, 1)
    s = (x.astype(np.float64) @ y.T).astype(np.int64)
    a, w = xnor.encode(bits.pack(x), k), xnor.encode(bits.pack(y), k)
    np.testing.assert_array_equal(device.get(xnor.multiply(a, w)), s)
    np.testing.assert_array_equal(device.get(xnor.multiply(a, w, "int16")), s)
    scale, shift = np.random.default_rng(2).normal(size=(2, n)).astype(np.float32)
    actual = xnor.multiply(a, w, "float32", device.put(scale), device.put(shift))
    exact = (s * scale.astype(np.float64) + shift).astype(np.float32)
    np.testing.assert_array_equal(device.get(actual), exact)
    t = s[m // 2].astype(np.int32)
    out = xnor.multiply_to_bits(a, w, device.put(bits.popcount_thresholds(t, k)))
    words = device.get(out.data)
    np.testing.assert_array_equal(bits.unpack_bits(words, n), s >= t)
    assert not bits.unpack_bits(words, 32 * out.kw)[:, n:].any()
    np.testing.assert_array_equal(device.get(out.ones), (s >= t).sum(axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8, np.bool_])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (9, 33), (130, 4097), (513, 128)], ids=str)
def test_packing(device, dtype, transposed, shape):
    x = np.random.default_rng(0).integers(0, 3, shape).astype(dtype)
    if np.dtype(dtype).kind in "fi":
        x -= 1
    expected = bits.pack(x if np.dtype(dtype).kind in "fi" else x != 0)
    operand = device.put(np.ascontiguousarray(x.T) if transposed else x)
    actual = Xnor(device).pack(operand, transposed=transposed)
    words = device.get(actual.data)
    np.testing.assert_array_equal(words[:, : expected.shape[1]], expected)
    assert not words[:, expected.shape[1] :].any()
    np.testing.assert_array_equal(device.get(actual.ones), np.bitwise_count(expected).sum(axis=1))


def test_the_baseline_is_the_float_product(device):
    a, w = signs(130, 77, 0).astype(np.float32), signs(50, 77, 1).astype(np.float32)
    out = device.empty((130, 50), np.float32)
    cuda.baseline(device, device.put(a), device.put(w), out)
    np.testing.assert_array_equal(device.get(out), a @ w.T)


@pytest.mark.parametrize("first", FIRSTS, ids=lambda f: f.value)
@pytest.mark.parametrize("kernel", ["xnor_gemm", "auto"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_definition(device, name, kernel, first):
    """A second batch of a size takes the recorded graph."""
    model = packed_model(*NETWORKS[name], seed=1)
    network = CudaNetwork(model, device, first, kernel)
    for n in (7, 3, 0, 7, 64):
        assert_same(network, pixels_for(model, n, seed=n))


@pytest.mark.parametrize("first", FIRSTS, ids=lambda f: f.value)
@pytest.mark.parametrize("bits", [(1, 2), (2, 1), (2, 2), (3, 4)], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_more_bits_are_the_definition(device, name, bits, first):
    weight_bits, activation_bits = bits
    model = packed_model(
        *NETWORKS[name], weight_bits=weight_bits, activation_bits=activation_bits, seed=1
    )
    network = CudaNetwork(model, device, first)
    for n in (7, 3, 7, 64):
        assert_same(network, pixels_for(model, n, seed=n))


@pytest.fixture
def exact_memory():
    """Each array is an allocation of its own, so that compute-sanitizer sees where it ends."""
    import cupy

    cupy.cuda.set_allocator(None)
    yield
    cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)


@pytest.mark.parametrize("shape", [(1, 1, 1), (130, 257, 1100)], ids=str)
def test_watched_products(xnor, device, shape, exact_memory):
    test_products_of_any_shape(xnor, device, shape)


def test_watched_packing(device, exact_memory):
    for dtype in (np.float32, np.int32, np.uint8):
        for transposed in (False, True):
            test_packing(device, dtype, transposed, (9, 33))


def test_watched_networks(device, exact_memory):
    test_the_baseline_is_the_float_product(device)
    for first in FIRSTS:
        for name in ("five inputs", "odd, pooled to one"):
            test_networks_are_the_definition(device, name, "auto", first)
            test_networks_of_more_bits_are_the_definition(device, name, (3, 4), first)


def test_kernels_wait_for_torch_s_stream(device):
    """A tensor that a long computation on a stream of its own makes is packed when it is made."""
    import cupy

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = torch.randn(2048, 2048, device="cuda")
        for _ in range(50):
            x = (x @ x).clamp_(-1, 1)
        packed = Xnor(device).pack(cupy.from_dlpack(x))
    expected = bits.pack(x.cpu().numpy())
    np.testing.assert_array_equal(device.get(packed.data)[:, : expected.shape[1]], expected)


# ---- training --------------------------------------------------------------------------------

TRAINED = {
    "mlp": ("arch.width=256", "arch.dropout_hidden=0.5"),
    "convnet": ("arch=convnet", "arch.channels=[32,32,64,64]", "arch.fc=[128]"),
    "torch7": ("arch.width=256", "binarization=stochastic", "norm=shift", "optimizer=shift_adamax"),
}


@pytest.mark.parametrize("shape", [(130, 70), (600, 33), (3, 16, 4, 6)], ids=str)
def test_watched_passes_of_training_are_the_processors(device, shape):
    generator = torch.Generator().manual_seed(0)
    s = torch.randint(-9, 9, shape, generator=generator).float()
    s = s if len(shape) == 2 else s.contiguous(memory_format=torch.channels_last)
    gamma, beta = (torch.randn(shape[1], generator=generator) for _ in range(2))
    g = torch.randn(shape, generator=generator)
    how = NormAct(1e-4, False, *ESTIMATORS[Estimator.ste])
    ours = [t.clone().cuda().requires_grad_() for t in (s, gamma, beta)]
    theirs = [t.clone().requires_grad_() for t in (s, gamma, beta)]
    kernels = FusedKernels(device)
    a, _ = NormSign.apply(*ours, how.eps, how.high, kernels)
    b, *_ = PoolNormActivation.apply(*theirs, how)
    a.backward(g.cuda())
    b.backward(g)
    assert torch.equal(a.cpu(), b)
    for t, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(t.grad.cpu(), expected.grad, rtol=1e-5, atol=1e-5)
    w, m, v = (torch.rand(shape, generator=generator) for _ in range(3))
    updated = [t.clone().cuda() for t in (w, g, m, v)]
    signs, rate = torch.empty_like(updated[0]), torch.tensor([0.01], device="cuda")
    kernels.adam(tuple(updated), signs, rate, AdamNumbers(0.9, 0.999, 1e-8, 2.0, clip=True))
    numbers = np.array([0.9, 0.1, 0.999, 0.001, 0.02, 1e-8], np.float32)
    adam_kernel(*(flat(t.contiguous()) for t in (w, g, m, v)), numbers, True)
    for t, expected in zip((updated[0], updated[2], updated[3]), (w, m, v), strict=True):
        torch.testing.assert_close(t.cpu(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(signs, torch.where(updated[0] >= 0, 1.0, -1.0))


def trainer_of(folder, *words):
    config = configure("train", "dataset=digits", "device=cuda", "trainer.epochs=2", *words)
    device = torch_device(config.device, config.threads)
    return Trainer(config, load(config.dataset), device, folder), config


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_a_training_step_is_plain_pytorchs(tmp_path, name, engine):
    trainer, config = trainer_of(tmp_path, *TRAINED[name], f"trainer.engine={engine}")
    batch = slice(config.trainer.batch_size)
    assert _check(trainer, config.optimizer, trainer.pixels[batch], trainer.labels[batch]) is None


@pytest.mark.parametrize("name", TRAINED)
def test_steps_are_one_graph_and_wait_for_nothing(tmp_path, name):
    trainer, config = trainer_of(tmp_path, *TRAINED[name])
    batch = slice(config.trainer.batch_size)
    examples = trainer.pixels[batch], trainer.labels[batch]
    for _ in range(WARM + 1):
        trainer.engine.step(*examples)
    assert trainer.engine.mode == "CUDA graph"
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            trainer.loss_sum += trainer.engine.step(*examples)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert 0 < trainer.loss_sum.item() < 40


def test_a_captured_step_trains_as_each_launch_by_itself(tmp_path):
    """To the bit, where the products are of matrices: cuBLAS repeats itself."""
    states = []
    for captured in (True, False):
        trainer, _ = trainer_of(tmp_path / str(captured), *TRAINED["mlp"])
        trainer.engine.captured.may_capture = captured
        trainer.run(StopRequest())
        states.append(trainer.network.state_dict())
    for name, t in states[0].items():
        assert torch.equal(t, states[1][name]), name


def test_a_run_on_a_gpu_stopped_and_resumed_gives_the_same_weights(tmp_path):
    through, _ = trainer_of(tmp_path / "through", *TRAINED["mlp"])
    through.run(StopRequest())
    stopped, _ = trainer_of(tmp_path / "stopped", *TRAINED["mlp"])
    stop, step = StopRequest(), stopped.engine.step

    def counted(pixels, labels):
        stop.number = signal.SIGINT if stopped.epoch == 0 and stopped.step == 7 else 0
        return step(pixels, labels)

    stopped.engine.step = counted
    with pytest.raises(Stopped):
        stopped.run(stop)
    resumed, _ = trainer_of(tmp_path / "stopped", *TRAINED["mlp"])
    resumed.restore()
    resumed.run(StopRequest())
    for name, t in through.network.state_dict().items():
        assert torch.equal(t, resumed.network.state_dict()[name]), name
