"""A training step as it is on a GPU: its kernels emulated, its graph a tape (tape.py)."""

import pytest
import torch
import torch.nn.functional as F
from command import configure
from emulated_device import EmulatedDevice
from tape import TapedDevice, put_in_place

from bnnrun.bench.train_step import _check
from bnnrun.data import load
from bnnrun.nn import binarize, models
from bnnrun.nn.cuda import NormSign, Passes
from bnnrun.nn.hidden import How, PoolNormActivation
from bnnrun.train import optim
from bnnrun.train.graph import WARM, RecordedStep
from bnnrun.train.interrupt import StopRequest
from bnnrun.train.trainer import Trainer

NETWORKS = {
    "mlp": ("arch.width=40", "arch.depth=2", "arch.dropout_hidden=0.3"),
    "mlp, drawn weights": ("arch.width=24", "arch.depth=1", "binarization.weights=stochastic"),
    "mlp, no clip, no gate": (
        "arch.width=24", "arch.depth=2", "optimizer.clip=none", "binarization.gate=false",
    ),
    "torch7": (
        "arch.width=24", "arch.depth=1", "binarization.activations=stochastic", "norm=shift",
        "optimizer=shift_adamax", "optimizer.rule=code",
    ),
    "sgd": ("arch.width=24", "arch.depth=1", "optimizer=sgd"),
    "convnet": ("arch=convnet", "arch.channels=[8,12]", "arch.fc=[20]"),
}  # fmt: skip
BATCH = 20


def trainer_of(folder, words, *more):
    config = configure("train", "dataset=digits", "device=cpu", f"trainer.batch_size={BATCH}",
                       *words, *more)  # fmt: skip
    dataset = load(config.dataset)
    return Trainer(config, dataset, torch.device("cpu"), folder), config


@pytest.fixture
def on_gpu(monkeypatch):
    """What is a pass of the processor's own is torch's operations, as on a GPU."""
    monkeypatch.setattr(models, "dropout", F.dropout)
    for module in (binarize, optim):
        monkeypatch.setattr(module, "is_dense", lambda t: False)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("shape", [(30, 40), (600, 5), (7, 16, 4, 6)], ids=str)
def test_batch_norm_and_sign_are_the_processors(shape, gated):
    generator = torch.Generator().manual_seed(0)
    n = shape[1]
    s = torch.randint(-9, 9, shape, generator=generator).float()
    s = s if len(shape) == 2 else s.contiguous(memory_format=torch.channels_last)
    gamma, beta = (torch.randn(n, generator=generator) for _ in range(2))
    g = torch.randn(shape, generator=generator)
    how, found = How(1e-4, False, gated), []
    for function, more in ((PoolNormActivation, ()), (NormSign, (Passes(EmulatedDevice((9, 0))),))):
        given = [t.clone().requires_grad_() for t in (s, gamma, beta)]
        a, *rest = function.apply(*given, how, *more)
        a.backward(g)
        of_batch = rest if len(rest) == 2 else (rest[0][0], rest[0][3])
        found.append([a, *of_batch, *(t.grad for t in given)])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "mlp, no clip, no gate", "convnet"])
def test_a_step_is_plain_pytorchs(tmp_path, name):
    """Forward, backward and update of every block, as `bench workload=train_step` checks them."""
    gate = ("binarization.gate=true",)  # which the competitor has
    trainer, config = trainer_of(tmp_path, NETWORKS[name], *gate)
    device = EmulatedDevice((9, 0))
    trainer.use(Passes(device))
    batch = slice(BATCH)
    assert _check(trainer, config.optimizer, trainer.pixels[batch], trainer.labels[batch]) is None
    launched = {(launch.kernel, *launch.defines) for launch in device.launches}
    clip = () if "no clip" in name else (("CLIP", None),)
    assert ("adam", *clip, ("SIGNS", None)) in launched
    assert len([launch for launch in launched if launch[0] == "norm_sign"]) == 6


def test_a_wrong_update_is_seen(tmp_path, monkeypatch):
    """The check above can fail."""
    trainer, config = trainer_of(tmp_path, NETWORKS["mlp"])
    passes = Passes(EmulatedDevice((9, 0)))
    right = passes.adam
    monkeypatch.setattr(passes, "adam", lambda of, signs, rate, numbers: right(
        of, signs, 1.1 * rate, numbers))  # fmt: skip
    trainer.use(passes)
    batch = slice(BATCH)
    wrong = _check(trainer, config.optimizer, trainer.pixels[batch], trainer.labels[batch])
    assert "after an update" in wrong


def test_an_update_leaves_the_signs_of_the_new_weights(tmp_path):
    trainer, _ = trainer_of(tmp_path, NETWORKS["mlp"])
    trainer.use(Passes(EmulatedDevice((9, 0))))
    for _ in range(2):
        trainer.train_step(trainer.pixels[:BATCH], trainer.labels[:BATCH])
    for product in trainer.network.binary_products:
        assert product.signs_version == product.weight._version
        expected = torch.where(product.weight >= 0, 1.0, -1.0)
        assert torch.equal(product.binarize(), expected)
        with torch.no_grad():
            product.weight.neg_()
        assert torch.equal(product.binarize(), torch.where(product.weight >= 0, 1.0, -1.0))


def taped(trainer, monkeypatch):
    """The trainer with its steps recorded."""
    device = TapedDevice((9, 0))
    trainer.use(Passes(device))

    def state():
        moments = (t for s in trainer.optimizer.state.values() for t in s.values()
                   if isinstance(t, torch.Tensor))  # fmt: skip
        signs = (product.signs for product in trainer.network.binary_products)
        return [*trainer.network.state_dict().values(), *moments, *signs]

    put_in_place(monkeypatch, device, state)
    trainer.recorded = RecordedStep(trainer._compute, trainer._forget)
    return trainer


def trained(trainer):
    """Everything that two epochs of a few steps leave."""
    trainer.steps, trainer.epochs = WARM + 3, 2
    trainer.run(StopRequest())
    moments = [t for s in trainer.optimizer.state.values() for t in s.values()
               if isinstance(t, torch.Tensor)]  # fmt: skip
    losses = torch.tensor([row["train_loss"] for row in trainer.history])
    return [*trainer.network.state_dict().values(), *moments, torch.get_rng_state(), losses]


@pytest.mark.parametrize("words", NETWORKS.values(), ids=list(NETWORKS))
def test_a_recorded_step_trains_as_each_launch_by_itself(tmp_path, words, monkeypatch, on_gpu):
    """To the bit: weights, moments, running statistics, losses, and the generator's state."""
    plain, _ = trainer_of(tmp_path / "plain", words)
    plain.use(Passes(EmulatedDevice((9, 0))))
    expected = trained(plain)
    recorded = taped(trainer_of(tmp_path / "recorded", words)[0], monkeypatch)
    found = trained(recorded)
    assert recorded.recorded.how == "CUDA graph"
    assert recorded.recorded.runs == WARM
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_recording_that_fails_costs_nothing(tmp_path, monkeypatch, on_gpu):
    plain, _ = trainer_of(tmp_path / "plain", NETWORKS["mlp"])
    plain.use(Passes(EmulatedDevice((9, 0))))
    expected = trained(plain)
    failing = taped(trainer_of(tmp_path / "failing", NETWORKS["mlp"])[0], monkeypatch)
    work, runs = failing.recorded.work, []

    def fails(pixels, labels):
        loss = work(pixels, labels)
        runs.append(loss)
        if len(runs) == WARM + 1:
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
        return loss

    failing.recorded.work = fails
    found = trained(failing)
    assert failing.recorded.how == ("eager: operation not permitted when stream is capturing")
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
