"""The processor's fused updates, each against the update of the optimizer itself."""

import dataclasses
import time

import numpy as np
import pytest
import torch
from networks import images, labels_of, network, typed

from bnnrun.config import AdaMaxRule
from bnnrun.engine.cpu import update
from bnnrun.engine.cpu.engine import CpuEngine
from bnnrun.engine.cpu.factors import HAS_BYTES, HAS_REALS, ByteFactors, RealFactors
from bnnrun.engine.cpu.kernels.elementwise import adam_kernel
from bnnrun.engine.cpu.packed import PackedWeights
from bnnrun.gemm.compiled import set_threads
from bnnrun.nn.optim import Adam, ShiftAdaMax, make_optimizer

START = torch.rand(33, 35, generator=torch.Generator().manual_seed(0)) * 2 - 1
ADAM = typed().optimizer
ADAMAX = typed("optimizer=shift_adamax").optimizer
RULES = {
    "adam": (Adam, ADAM),
    "adamax, code": (ShiftAdaMax, dataclasses.replace(ADAMAX, rule=AdaMaxRule.code)),
    "adamax, paper": (ShiftAdaMax, dataclasses.replace(ADAMAX, rule=AdaMaxRule.paper)),
}


def moved(rule, config, clip, *, fused):
    """(w, m, v) after gradients of very different sizes, some of them 0."""
    p = torch.nn.Parameter(START.clone())
    optimizer = rule([{"params": [p], "scale": 4.0, "clip": clip}], config)
    generator = torch.Generator().manual_seed(1)
    for size in (1.0, 1e-3, 0.0, 10.0, 1e-12):
        p.grad = size * torch.randn(START.shape, generator=generator)
        p.grad[0] = 0
        optimizer.advance()
        if fused:
            (member,) = optimizer.members()
            assert update.FUSED[rule](optimizer, *member, None)
        else:
            optimizer.apply()
    return p.detach(), optimizer.state[p]["m"], optimizer.state[p]["v"]


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("rule", "config"), RULES.values(), ids=list(RULES))
def test_a_fused_update_is_the_optimizers(rule, config, clip):
    """Off by a few roundings; Adam's fused one counts what is below 1e-30 as 0."""
    found, expected = (moved(rule, config, clip, fused=fused) for fused in (True, False))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert torch.equal(found[0][0], START[0])
    assert (found[0].abs().max() == 1) == clip


def test_a_fused_update_is_seen_by_autograd():
    """The version of the weight counts up: so its packed signs are known to be stale."""
    for rule, config in RULES.values():
        p = torch.nn.Parameter(START.clone())
        optimizer = rule([{"params": [p]}], config)
        p.grad = torch.ones_like(p)
        before = p._version
        optimizer.advance()
        (member,) = optimizer.members()
        update.FUSED[rule](optimizer, *member, None)
        assert p._version > before


@pytest.mark.parametrize("part", [1, 700, 10**6])
def test_gradients_as_factors_make_the_update_of_whole_gradients(monkeypatch, part):
    """Part by part, down to single rows."""
    monkeypatch.setattr(update, "PART_WEIGHTS", part)
    monkeypatch.setattr(update, "HAS_BYTES", False)
    monkeypatch.setattr(update, "HAS_REALS", False)
    engines = []
    for deferred in (True, False):
        net = network("arch.width=48")
        engine = CpuEngine(net, make_optimizer(net, typed().optimizer))
        for seed in range(3):
            x = images(100, seed)
            engine.advance()
            engine.deferred = deferred
            engine.gradients(x, labels_of(x, net))
            assert (net.blocks[1].product.weight.grad is None) == deferred
            engine.update()
        engines.append(engine)
    pairs = zip(*(engine.network.parameters() for engine in engines), strict=True)
    for p, q in pairs:
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "has"),
    [(lambda g, a: ByteFactors.of(g, a, 1.0), HAS_BYTES), (RealFactors.of, HAS_REALS)],
    ids=["bytes", "reals"],
)
def test_the_step_of_a_gradient_from_its_factors_is_vector_code(make, has):
    """Of four images the gradient costs little; by one element at a time it takes five times as
    long as the plain kernel, by vectors one and a half times. Processor time, the least of several.
    """
    if not has:
        pytest.skip("this processor has no instructions for it")
    w, m, v = (np.full((256, 1024), x, np.float32) for x in (0.5, 1e-4, 1e-7))
    g, a = torch.full((4, 256), 1e-3), torch.ones(4, 1024)
    constants = np.array([0.9, 0.1, 0.999, 0.001, 1e-4, 1e-8], np.float32)
    packed, factors = PackedWeights(256, 1024), make(g, a)
    whole = np.full(w.size, 4e-3, np.float32)
    flat = [x.ravel() for x in (w, m, v)]

    def least(call):
        times = []
        for _ in range(20):
            began = time.thread_time()
            call()
            times.append(time.thread_time() - began)
        return min(times)

    before = set_threads(1)
    try:
        plain = least(lambda: adam_kernel(flat[0], whole, *flat[1:], constants, True))
        fused = least(lambda: factors.update((w, m, v), constants, packed, clip=True))
    finally:
        set_threads(before)
    assert fused < 3 * plain
