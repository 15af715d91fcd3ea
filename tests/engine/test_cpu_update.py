"""The processor's fused updates, each against the update of the optimizer itself."""

import dataclasses

import pytest
import torch
from networks import images, labels_of, network, typed

from bnnrun.config import AdaMaxRule
from bnnrun.engine.cpu import update
from bnnrun.engine.cpu.engine import CpuEngine
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
