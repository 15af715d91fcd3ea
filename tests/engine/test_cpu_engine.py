"""What the processor's engine remembers of a layer: when it holds, and when it does not."""

from dataclasses import replace

import numba
import pytest
import torch
import torch.nn.functional as F
from networks import SPEC, images, labels_of, network, randomize_norms, typed

from bnnrun.config import Estimator
from bnnrun.engine.cpu import factors, update
from bnnrun.engine.cpu.engine import CpuEngine
from bnnrun.gemm.lut_gemm import HAS_LUT
from bnnrun.nn.engine import Engine
from bnnrun.nn.optim import make_optimizer

# No width is a multiple of a word or a panel; the convolutions are of 8x8 and 4x4 pixels.
MLP = ("arch.width=70", "arch.dropout_input=0", "arch.dropout_hidden=0")
CONVNET = ("arch=convnet", "arch.channels=[16,48,32,16]", "arch.fc=[45]")
both = pytest.mark.parametrize("words", [MLP, CONVNET], ids=["mlp", "convnet"])


def engine_of(*words: str) -> CpuEngine:
    """Its steps are large enough to turn signs."""
    net = randomize_norms(network(*words))
    return CpuEngine(net, make_optimizer(net, typed("optimizer.lr=0.05").optimizer))


def step(engine, *, deferred=True):
    engine.advance()
    engine.deferred = deferred
    x = images(20)
    engine.gradients(x, labels_of(x, engine.network))
    engine.deferred = False
    engine.update()


def load_others(engine):
    """As from a checkpoint."""
    state = engine.network.state_dict()
    engine.network.load_state_dict({n: t if t is None else -t for n, t in state.items()})


def turn(engine):
    with torch.no_grad():
        engine.network.blocks[1].product.weight.neg_()


def turn_detached(engine):
    engine.network.blocks[1].product.weight.detach()[:3].fill_(-0.5)


CHANGES = {
    "fused step": step,
    "step": lambda engine: step(engine, deferred=False),
    "load_state_dict": load_others,
    "in place": turn,
    "some of them": turn_detached,
}


def product_by_definition(block, a):
    w = torch.where(block.product.weight.detach() >= 0, 1.0, -1.0)
    return F.conv2d(a, w, padding=1) if block.layer.is_conv else a @ w.t()


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
@pytest.mark.parametrize("evaluated", [False, True])
@both
def test_changed_weights_have_new_signs_at_their_next_use(words, evaluated, change):
    """Even where an evaluation has just packed the old ones."""
    engine = engine_of(*words)
    block = engine.network.blocks[1]
    shape = (6, 16, 8, 8) if block.layer.is_conv else (6, 70)
    a = torch.where(torch.randn(shape) >= 0, 1.0, -1.0)
    step(engine)  # a first one, so that all buffers are there
    if evaluated:
        engine.evaluate(images(5))
    before = block.product.weight.detach().clone()
    change(engine)
    assert not torch.equal(block.product.weight >= 0, before >= 0)
    for _ in range(2):
        expected = product_by_definition(block, a)
        assert torch.equal(engine.product(block, a).detach(), expected)
        assert torch.equal(engine.evaluate_product(block, a).float(), expected)


def test_a_convolution_goes_back_by_its_last_forward_pass_alone():
    """Its bits are read again: those of another pass would give wrong gradients in silence."""
    engine = engine_of(*CONVNET)
    block = engine.network.blocks[1]
    x = torch.where(torch.randn(6, 16, 8, 8) >= 0, 1.0, -1.0).requires_grad_()
    first, last = engine.product(block, x), engine.product(block, x)
    with pytest.raises(RuntimeError, match=r"conv2: its bits are those of a later forward pass"):
        first.sum().backward()
    last.sum().backward()
    assert x.grad is not None


def test_factors_that_no_update_took_do_not_outlive_the_next_gradients():
    """An update takes the latest gradients, whichever way they were left."""
    engine, x = engine_of(*MLP), images(20)
    state = engine.state[1]
    engine.deferred = True
    engine.gradients(x, labels_of(x, engine.network))
    assert state.factors is not None
    engine.deferred = False
    engine.gradients(x, labels_of(x, engine.network))
    assert state.take_factors() is None
    assert state.weight.grad is not None


def test_a_minibatch_too_large_for_16_bit_integers_is_summed_in_float32(monkeypatch):
    monkeypatch.setattr(update, "MAX_BATCH", 19)
    monkeypatch.setattr(factors.ByteFactors, "of", None)
    step(engine_of(*MLP))


def test_an_engine_puts_nothing_on_layers_parameters_or_the_optimizer():
    """Its state is its own; the network is what the reference sees."""
    engine = engine_of(*MLP)
    names = [set(vars(m)) for m in engine.network.modules()]
    step(engine)
    engine.evaluate(images(5))
    assert [set(vars(m)) for m in engine.network.modules()] == names
    for p in engine.network.parameters():
        assert set(vars(p)) == set()
    assert (
        vars(engine.optimizer).keys()
        == vars(make_optimizer(network(*MLP), typed().optimizer)).keys()
    )


@both
def test_what_computes_a_block_is_described(words):
    """The words of the record; where an engine has no kernel, those of the reference."""
    found = [str(engine_of(*words).describe(b)) for b in engine_of(*words).network.blocks]
    assert found[-1].endswith("norm plain; update fused")
    assert all(f.endswith("norm fused; update fused") for f in found[:-1])
    first = "LUT float32" if HAS_LUT else "float32"
    conv = "float32; g_a float32; g_W float32"  # one channel is no vector
    assert found[0].startswith(first if words is MLP else conv)
    if HAS_LUT or words is CONVNET:
        assert found[1].startswith("popcount; g_a ")
    reference = Engine(network(*words))
    plain = "float32; g_a float32; g_W float32; norm plain; update plain"
    assert {str(reference.describe(b)) for b in reference.network.blocks} == {plain}


def test_an_estimator_without_kernels_falls_back_and_is_described_so():
    engine = engine_of(*MLP, "binarization.estimator=approx")
    for block in engine.network.blocks:
        assert block.estimator is Estimator.approx
        assert not engine.describe(block).fused_norm
    second, fused = engine.network.blocks[1], engine_of(*MLP)
    described = fused.describe(fused.network.blocks[1])
    assert described.fused_norm
    assert engine.describe(second) == replace(described, fused_norm=False)


@pytest.mark.parametrize(
    "words",
    [("norm=shift",), ("binarization=stochastic",), ("norm=shift", "binarization=stochastic")],
)
def test_the_torch7_codes_choices_are_fused(words):
    engine = engine_of(*MLP, *words)
    *hidden, last = (engine.describe(block) for block in engine.network.blocks)
    assert all(each.fused_norm for each in hidden)
    assert not last.fused_norm


@pytest.fixture
def threads():
    """Sets the threads of Numba and of torch, and sets them back."""
    before = numba.get_num_threads(), torch.get_num_threads()

    def set_both(of_numba, of_torch):
        numba.set_num_threads(of_numba)
        torch.set_num_threads(of_torch)

    yield set_both
    set_both(*before)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core: no second thread")
@pytest.mark.parametrize(
    "words",
    [("arch.width=70",), ("arch=convnet", "arch.channels=[16,32]", "arch.fc=[45]")],
    ids=["mlp with dropout", "convnet"],
)
def test_the_weights_do_not_depend_on_the_number_of_threads(threads, words):
    found = []
    for count in (1, 2):
        threads(count, 1)
        engine = engine_of(*words)
        for seed in range(4):
            x = images(200, seed, SPEC)
            engine.step(x, labels_of(x, engine.network))
        found.append(engine.network.state_dict())
    for name, t in found[0].items():
        assert t is None or torch.equal(t, found[1][name]), name
