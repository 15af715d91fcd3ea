"""Kernels of a step and of evaluation, compiled before the first."""

import copy

import pytest
import torch
from networks import SPEC, TWELVE, images, labels_of, network, typed

from bnnrun.engine.cpu import engine as cpu_engine
from bnnrun.engine.cpu.engine import CpuEngine
from bnnrun.gemm.compiled import noted_calls
from bnnrun.nn.optim import make_optimizer

MLP, DROPOUT = ("arch.width=70",), ("arch.dropout_input=0.2", "arch.dropout_hidden=0.5")
CONVNET = ("arch=convnet", "arch.channels=[16,48,32,16]", "arch.fc=[45]")
SHIFT, SAMPLED = ("norm=shift", "optimizer=shift_adamax"), ("binarization=stochastic",)
TWO_BITS = ("binarization.activation_bits=2", "binarization.weight_bits=2")
KINDS = {
    "mlp": MLP,
    "mlp with dropout": (*MLP, *DROPOUT),
    "mlp of Torch7": (*MLP, *DROPOUT, *SHIFT, *SAMPLED),
    "mlp of two bits": (*MLP, *TWO_BITS),
    "float mlp": (*MLP, "binarization=none", "optimizer=sgd"),
    "convnet": CONVNET,
    "convnet of Torch7": (*CONVNET, *SHIFT, *SAMPLED),
    "convnet of two bits": (*CONVNET, *TWO_BITS),
    "convnet of binary weights": (*CONVNET, "binarization=weights"),
    "float convnet": (*CONVNET, "binarization=none"),
}


def engine_of(words, kind):
    net = network(*words, kind=kind)
    return CpuEngine(net, make_optimizer(net, typed(*words, "optimizer.lr=0.05").optimizer))


def batch(engine, count, kind):
    x = images(count, kind=kind)
    return x, labels_of(x, engine.network)


@pytest.mark.parametrize("kind", [SPEC, TWELVE], ids=["8x8", "12x12"])
@pytest.mark.parametrize("words", KINDS.values(), ids=list(KINDS))
def test_every_kernel_of_training_is_known_before_the_first_step(
    words, kind, monkeypatch, made_calls
):
    noted = set()

    def note(run, processes):
        with noted_calls() as calls:
            run()
        noted.update(calls)

    monkeypatch.setattr(cpu_engine, "compile_ahead", note)
    engine = engine_of(words, kind)
    engine.compile(*batch(engine, 2, kind))
    made = set()
    for _ in range(3):
        made |= made_calls(engine.step, *batch(engine, 20, kind))
        made |= made_calls(engine.evaluate, images(30, kind=kind))
    assert made == noted


@pytest.mark.parametrize("words", KINDS.values(), ids=list(KINDS))
def test_compiling_changes_nothing(words):
    engine = engine_of(words, SPEC)
    other = copy.deepcopy(engine)
    engine.compile(*batch(engine, 2, SPEC))
    for _ in range(2):
        losses = [e.step(*batch(e, 20, SPEC)) for e in (engine, other)]
        assert torch.equal(*losses)
    ours, theirs = engine.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
