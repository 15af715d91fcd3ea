"""The engine of a GPU as a whole: its kernels emulated, its captured step a tape (tape.py)."""

import pytest
import torch
import torch.nn.functional as F
from command import configure
from emulated_device import EmulatedDevice
from networks import typed
from tape import TapedDevice, put_in_place

from bnnrun.bench.train_step import _check
from bnnrun.config import EngineChoice, Estimator
from bnnrun.data import load
from bnnrun.engine import choose
from bnnrun.engine.cpu.norm_act import ESTIMATORS, NormAct, PoolNormActivation
from bnnrun.engine.cuda.captured_step import WARM
from bnnrun.engine.cuda.engine import LIMITS, CudaEngine
from bnnrun.engine.cuda.fused import FusedKernels, NormSign
from bnnrun.engine.cuda.tf32 import Tf32Product
from bnnrun.errors import InputError
from bnnrun.nn.engine import Engine
from bnnrun.nn.quantizers import sign
from bnnrun.train.interrupt import StopRequest
from bnnrun.train.trainer import Trainer

NETWORKS = {
    "mlp": ("arch.width=40", "arch.depth=2", "arch.dropout_hidden=0.3"),
    "mlp, sampled weights": ("arch.width=24", "arch.depth=1", "binarization.weights=stochastic"),
    "mlp, no clip, identity": (
        "arch.width=24", "arch.depth=2", "optimizer.clip=none", "binarization.estimator=identity",
    ),
    "torch7": (
        "arch.width=24", "arch.depth=1", "binarization.activations=stochastic", "norm=shift",
        "optimizer=shift_adamax", "optimizer.rule=code",
    ),
    "sgd": ("arch.width=24", "arch.depth=1", "optimizer=sgd"),
    "convnet": ("arch=convnet", "arch.channels=[8,12]", "arch.fc=[20]"),
}  # fmt: skip
BATCH = 20


def trainer_of(folder, words, device=None):
    """A trainer with the engine of `device`, emulated; None: the reference."""
    config = configure("train", "dataset=digits", "device=cpu", f"trainer.batch_size={BATCH}",
                       *words)  # fmt: skip
    trainer = Trainer(config, load(config.dataset), torch.device("cpu"), folder)
    parts = trainer.network, trainer.optimizer, config.seed
    trainer.engine = CudaEngine(*parts, device=device) if device else Engine(*parts)
    return trainer


@pytest.mark.parametrize("estimator", LIMITS)
@pytest.mark.parametrize("shape", [(30, 40), (600, 5), (7, 16, 4, 6)], ids=str)
def test_batch_norm_and_sign_are_the_processors(shape, estimator):
    generator = torch.Generator().manual_seed(0)
    n = shape[1]
    s = torch.randint(-9, 9, shape, generator=generator).float()
    s = s if len(shape) == 2 else s.contiguous(memory_format=torch.channels_last)
    gamma, beta = (torch.randn(n, generator=generator) for _ in range(2))
    g = torch.randn(shape, generator=generator)
    functions = (
        (PoolNormActivation, (NormAct(1e-4, False, *ESTIMATORS[estimator]),)),
        (NormSign, (1e-4, LIMITS[estimator], FusedKernels(EmulatedDevice((9, 0))))),
    )
    found = []
    for function, more in functions:
        given = [t.clone().requires_grad_() for t in (s, gamma, beta)]
        a, *rest = function.apply(*given, *more)
        a.backward(g)
        of_batch = rest if len(rest) == 2 else (rest[0][0], rest[0][3])
        found.append([a, *of_batch, *(t.grad for t in given)])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, 40), (5, 16, 8, 8)])
@pytest.mark.parametrize("unit", [None, 1.0, 2.0, 1 / 0.7])
def test_the_product_in_tf32_is_the_product(shape, unit):
    """On the processor, where TF32 is float32: its sums and both gradients."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(shape, generator=generator)
    signs = torch.randint(0, 3, shape, generator=generator) - 1.0
    a = (unit * signs if unit else a).requires_grad_()
    conv = len(shape) == 4
    w = torch.randn(24, shape[1], *(3, 3) * conv, generator=generator).requires_grad_()
    b, v = (t.detach().clone().requires_grad_() for t in (a, sign(w.detach())))
    s = Tf32Product.apply(a, w, sign(w.detach()), unit)
    expected = F.conv2d(b, v, padding=1) if conv else b @ v.t()
    g = torch.randn(expected.shape, generator=generator)
    s.backward(g)
    expected.backward(g)
    if unit:
        whole = s.detach().double() / unit
        assert (whole - whole.round()).abs().max() < 1e-5
    torch.testing.assert_close(s, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(w.grad, v.grad, rtol=1e-5, atol=1e-4)
    assert not torch.backends.cuda.matmul.allow_tf32


def checked(trainer):
    config = trainer.config.optimizer
    return _check(trainer, config, trainer.pixels[:BATCH], trainer.labels[:BATCH])


@pytest.mark.parametrize("name", ["mlp", "mlp, no clip", "convnet"])
def test_a_step_is_plain_pytorchs(tmp_path, name):
    """Forward, backward and update of every block, as `bench workload=train_step` checks them."""
    network, _, no_clip = name.partition(", ")
    device = EmulatedDevice((9, 0))
    words = *NETWORKS[network], *(["optimizer.clip=none"] if no_clip else [])
    assert checked(trainer_of(tmp_path, words, device)) is None
    launched = {(launch.kernel, *launch.defines) for launch in device.launches}
    clip = () if no_clip else (("CLIP", None),)
    assert ("adam", *clip, ("SIGNS", None)) in launched
    assert len([launch for launch in launched if launch[0] == "norm_sign"]) == 6


def test_a_wrong_update_is_seen(tmp_path, monkeypatch):
    """The check above can fail."""
    trainer = trainer_of(tmp_path, NETWORKS["mlp"], EmulatedDevice((9, 0)))
    kernels = trainer.engine.kernels
    right = kernels.adam
    monkeypatch.setattr(kernels, "adam", lambda of, signs, rate, numbers: right(
        of, signs, 1.1 * rate, numbers))  # fmt: skip
    assert "after an update" in checked(trainer)


def test_an_update_leaves_the_signs_of_the_new_weights(tmp_path):
    trainer = trainer_of(tmp_path, NETWORKS["mlp"], EmulatedDevice((9, 0)))
    engine = trainer.engine
    for _ in range(2):
        engine.advance()
        engine.compute(trainer.pixels[:BATCH], trainer.labels[:BATCH])
    assert len(engine.signs) == 3
    for weight, signs in engine.signs.items():
        assert signs.version == weight._version
        assert torch.equal(signs.buffer, torch.where(weight >= 0, 1.0, -1.0))
        with torch.no_grad():
            weight.neg_()
        assert torch.equal(signs.current(), torch.where(weight >= 0, 1.0, -1.0))


def moments(trainer):
    return [t for s in trainer.optimizer.state.values() for t in s.values()
            if isinstance(t, torch.Tensor)]  # fmt: skip


def taped(folder, words, monkeypatch):
    """A trainer whose steps are captured."""
    device = TapedDevice((9, 0))
    trainer = trainer_of(folder, words, device)

    def state():
        buffers = (signs.buffer for signs in trainer.engine.signs.values())
        return [*trainer.network.state_dict().values(), *moments(trainer), *buffers]

    put_in_place(monkeypatch, device, state)
    return trainer


def eager(folder, words, monkeypatch):
    """A trainer whose steps are never captured."""
    trainer = taped(folder, words, monkeypatch)
    trainer.engine.captured.may_capture = False
    return trainer


def trained(trainer):
    """Everything that two epochs of a few steps leave."""
    trainer.steps, trainer.epochs = WARM + 3, 2
    trainer.run(StopRequest())
    losses = torch.tensor([row["train_loss"] for row in trainer.history])
    return [*trainer.network.state_dict().values(), *moments(trainer), losses]


@pytest.mark.parametrize("words", NETWORKS.values(), ids=list(NETWORKS))
def test_a_captured_step_trains_as_each_launch_by_itself(tmp_path, words, monkeypatch):
    """To the bit: weights, moments, running statistics and losses."""
    expected = trained(eager(tmp_path / "eager", words, monkeypatch))
    trainer = taped(tmp_path / "captured", words, monkeypatch)
    found = trained(trainer)
    assert trainer.engine.mode == "CUDA graph"
    assert trainer.engine.captured.runs == WARM
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_capture_that_fails_costs_nothing(tmp_path, monkeypatch):
    expected = trained(eager(tmp_path / "eager", NETWORKS["mlp"], monkeypatch))
    failing = taped(tmp_path / "failing", NETWORKS["mlp"], monkeypatch)
    captured, runs = failing.engine.captured, []
    work = captured.work

    def fails(pixels, labels):
        loss = work(pixels, labels)
        runs.append(loss)
        if len(runs) == WARM + 1:
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
        return loss

    captured.work = fails
    found = trained(failing)
    assert failing.engine.mode == "eager: operation not permitted when stream is capturing"
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


class Elsewhere:
    """Stands for a network on a device that is not the processor."""

    class input:  # noqa: N801
        p = torch.zeros((), device="meta")


def test_where_a_device_has_no_engine_fast_is_refused_and_auto_is_the_reference(monkeypatch):
    def none():
        raise InputError("no CUDA device")

    monkeypatch.setattr(choose, "open_device", none)
    assert type(choose.make_engine(EngineChoice.auto, Elsewhere)) is Engine
    assert type(choose.make_engine(EngineChoice.reference, Elsewhere)) is Engine
    with pytest.raises(InputError, match=r"trainer\.engine=fast: this device has none \(no CUDA"):
        choose.make_engine(EngineChoice.fast, Elsewhere)


def test_the_choice_of_the_configuration_is_auto():
    assert typed().trainer.engine is EngineChoice.auto
    assert {Estimator.ste, Estimator.identity} == set(LIMITS) == set(ESTIMATORS)
