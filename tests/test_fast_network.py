"""trainer.precision=fast on the processor, as a whole, against float32: the referee."""

import copy
import functools

import numba
import pytest
import torch
import torch.nn.functional as F
from command import configure
from test_nn import KIND, ODD, images, network
from test_train import assert_same, weights

from bnnrun.data import load
from bnnrun.data.dataset import Kind
from bnnrun.errors import Stopped
from bnnrun.gemm.lookup import HAS_LOOKUP
from bnnrun.nn import layers, winograd
from bnnrun.nn.losses import squared_hinge
from bnnrun.train import optim
from bnnrun.train.interrupt import StopRequest
from bnnrun.train.optim import make_optimizer
from bnnrun.train.trainer import Trainer

BF16 = 2.0**-8

# No width is a multiple of a word or a panel; the convolutions are of 8x8 and 4x4 pixels.
MLP = ("arch.width=70", "arch.dropout_input=0", "arch.dropout_hidden=0")
DROPOUT = ("arch.width=70", "arch.dropout_input=0.2", "arch.dropout_hidden=0.5")
CONVNET = ("arch=convnet", "arch.channels=[16,48,32,16]", "arch.fc=[45]")
NETWORKS = {
    "mlp": MLP,
    "dropout": DROPOUT,
    "convnet": CONVNET,
    "shift mlp": (*MLP, "norm=shift"),
    "shift convnet": (*CONVNET, "norm=shift"),
    "drawn mlp": (*MLP, "binarization.weights=stochastic"),
    "drawn convnet": (*CONVNET, "binarization.weights=stochastic"),
    "drawn activations": (*MLP, "binarization=stochastic"),
    "without gate": (*CONVNET, "binarization.gate=false"),
}
# Activations are real numbers: the sums of the second and third convolution are filtered.
REAL_NETWORKS = {
    "float": (*CONVNET, "binarization=none"),
    "float, shift norm": (*CONVNET, "binarization=none", "norm=shift"),
    "binary weights": (*CONVNET, "binarization=weights"),
}
# Pooling of odd sizes; 6x6 pixels, which are no whole tiles; 3x3.
ODD_NETWORKS = {
    "7x10": (("arch=convnet", "arch.channels=[16,16,16]", "arch.fc=[9]"), ODD),
    "12x12": (
        ("arch=convnet", "arch.channels=[16,16,16,32,16,16]", "arch.fc=[9]"),
        Kind(image_shape=(1, 12, 12), classes=tuple("abc"), levels=16),
    ),
}


# Reading a configuration takes longer than most of what is tested here.
typed = functools.cache(configure)
made = functools.cache(lambda words, kind: network(*words, kind=kind))
digits = functools.cache(lambda: load(typed("train", "dataset=digits").dataset))


def fast_and_plain(words, kind=KIND):
    """Two networks with the same parameters, no beta of which is 0: no sum is at the mean."""
    pair = tuple(copy.deepcopy(made(words, kind)) for _ in range(2))
    for net in pair:
        torch.manual_seed(1)
        with torch.no_grad():
            for block in net.blocks:
                block.norm.gamma.normal_()
                block.norm.beta.uniform_(-0.5, 0.5)
    pair[0].configure(fast=True)
    return pair


def loss_of(net, x):
    """Forward, from the same state of torch's generator."""
    torch.manual_seed(2)
    labels = torch.arange(len(x)) % len(net.kind.classes)
    return squared_hinge(net(x), labels)


def inputs_of(net, x):
    """What each product takes in a forward pass, behind dropout."""
    seen = []
    hooks = [
        block.product.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
        for block in net.blocks
    ]
    loss_of(net, x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("words", NETWORKS.values(), ids=list(NETWORKS))
def test_hidden_sums_are_those_of_float32_to_the_last_bit(words):
    fast, plain = fast_and_plain(words)
    given = inputs_of(fast, images(30))
    for i in range(1, len(given)):
        ours, theirs = (net.blocks[i].product for net in (fast, plain))
        assert ours.counts(given[i], whole=True) == (HAS_LOOKUP or ours.is_conv)
        sums = []
        for product in (ours, theirs):
            torch.manual_seed(3)  # the same draw of weights
            sums.append(product(given[i], 1 / (1 - fast.blocks[i].dropout)))
        assert torch.equal(*sums)


def steps_gradients(net, words, x, *, deferred):
    """The gradients that Adam's first step takes: its m over 1 - b1."""
    optimizer = make_optimizer(net, typed("train", "dataset=digits", *words).optimizer)
    net.configure(deferred=deferred)
    loss_of(net, x).backward()
    optimizer.step()
    return [optimizer.state[p]["m"] / 0.1 for p in net.parameters()]


def assert_within_bf16(ours, theirs):
    for p, q in zip(ours, theirs, strict=True):
        # Without the gate the batch norm behind a layer takes its beta back: that gradient is 0.
        assert (p - q).norm() <= BF16 * q.norm() + 1e-6


# What the processor has, and whether gradients come as factors.
WAYS = {
    "whole gradients": ({}, False),
    "no product of bytes": ({"HAS_BYTES": False}, True),
    "gradients by parts": ({"HAS_BYTES": False, "HAS_REALS": False}, True),
    "no tables": ({"HAS_LOOKUP": False}, True),
}


@pytest.mark.parametrize("words", NETWORKS.values(), ids=list(NETWORKS))
def test_gradients_are_within_bf16_rounding_of_float32s(words):
    """As Adam takes them."""
    fast, plain = fast_and_plain(words)
    x = images(30)
    expected = steps_gradients(plain, words, x, deferred=False)
    assert_within_bf16(steps_gradients(fast, words, x, deferred=True), expected)


@pytest.mark.parametrize(("missing", "deferred"), WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("words", [DROPOUT, CONVNET], ids=["dropout", "convnet"])
def test_without_the_instructions_gradients_are_the_same(monkeypatch, words, missing, deferred):
    """And after the step the signs are those of the new weights."""
    for name, value in missing.items():
        monkeypatch.setattr(layers if name == "HAS_LOOKUP" else optim, name, value)
    fast, plain = fast_and_plain(words)
    x = images(30)
    expected = steps_gradients(plain, words, x, deferred=False)
    assert_within_bf16(steps_gradients(fast, words, x, deferred=deferred), expected)
    assert_same_evaluation(fast, plain, x)


def test_a_minibatch_too_large_for_bytes_goes_the_plain_way(monkeypatch):
    monkeypatch.setattr(optim, "MOST", 29)
    monkeypatch.setattr(optim.ByteFactors, "of", None)
    fast, plain = fast_and_plain(MLP)
    expected = steps_gradients(plain, MLP, images(30), deferred=False)
    assert_within_bf16(steps_gradients(fast, MLP, images(30), deferred=True), expected)


@pytest.mark.parametrize("words", REAL_NETWORKS.values(), ids=list(REAL_NETWORKS))
def test_convolutions_of_real_numbers_train_and_evaluate_as_in_float32(monkeypatch, words):
    shapes = []
    convolve = winograd.convolve
    monkeypatch.setattr(
        winograd, "convolve", lambda of, room: shapes.append(of.w.shape) or convolve(of, room)
    )
    fast, plain = fast_and_plain(words)
    x = images(30)
    scores = [net(x) for net in (fast, plain)]
    assert (scores[0] - scores[1]).norm() < 1e-4 * scores[1].norm()
    assert [shape[1] for shape in shapes] == [16, 48, 32]
    named = [block.arithmetic() for block in fast.blocks]
    assert named[1:4] == ["float32, by Winograd's filtering"] * 3
    expected = steps_gradients(plain, words, x, deferred=False)
    assert_within_bf16(steps_gradients(fast, words, x, deferred=True), expected)
    plain.load_state_dict(fast.state_dict())
    (scores, _), (expected, _) = (net.evaluate(x) for net in (fast, plain))
    assert (scores - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize(("words", "kind"), ODD_NETWORKS.values(), ids=list(ODD_NETWORKS))
def test_odd_sizes_go_the_plain_way(words, kind):
    fast, plain = fast_and_plain(words, kind)
    x = images(30, kind=kind)
    expected = steps_gradients(plain, words, x, deferred=False)
    assert_within_bf16(steps_gradients(fast, words, x, deferred=True), expected)
    assert_same_evaluation(fast, plain, x)


def assert_same_evaluation(fast, plain, x):
    plain.load_state_dict(fast.state_dict())
    (scores, closed), (expected, shares) = (net.evaluate(x) for net in (fast, plain))
    assert torch.equal(scores, expected)
    assert closed == shares


@pytest.mark.parametrize("words", NETWORKS.values(), ids=list(NETWORKS))
def test_evaluation_is_that_of_float32_to_the_last_bit(words):
    fast, plain = fast_and_plain(words)
    for seed in range(3):
        fast(images(30, seed))  # so that the running statistics are not 0 and 1
    assert_same_evaluation(fast, plain, images(45, seed=5))


def made_layer(words):
    """(network, its second block's product, ±1 for it)."""
    net = fast_and_plain(words)[0]
    product = net.blocks[1].product
    shape = (6, 16, 8, 8) if product.is_conv else (6, 70)
    return net, product, torch.where(torch.randn(shape) >= 0, 1.0, -1.0)


def sums_of(product, a):
    w = torch.where(product.weight.detach() >= 0, 1.0, -1.0)
    return F.conv2d(a, w, padding=1) if product.is_conv else a @ w.t()


def step(net, *, deferred):
    """An update large enough to turn signs."""
    config = typed("train", "dataset=digits", "optimizer.lr=0.05").optimizer
    optimizer = make_optimizer(net, config)
    net.configure(deferred=deferred)
    loss_of(net, images(20)).backward()
    return optimizer.step


def load_others(net):
    """As from a checkpoint."""
    net.load_state_dict({name: -t for name, t in net.state_dict().items()})


def turn(net):
    with torch.no_grad():
        net.blocks[1].product.weight.neg_()


def turn_detached(net):
    net.blocks[1].product.weight.detach()[:3].fill_(-0.5)


CHANGES = {
    "fused step": lambda net: step(net, deferred=True),
    "step": lambda net: step(net, deferred=False),
    "load_state_dict": lambda net: lambda: load_others(net),
    "in place": lambda net: lambda: turn(net),
    "some of them": lambda net: lambda: turn_detached(net),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
@pytest.mark.parametrize("evaluated", [False, True])
@pytest.mark.parametrize("words", [MLP, CONVNET], ids=["mlp", "convnet"])
def test_changed_weights_have_new_signs_at_their_next_use(words, evaluated, change):
    """Even where an evaluation has just packed the old ones."""
    net, product, a = made_layer(words)
    changes = change(net)
    if evaluated:
        net.evaluate(images(5))
    before = product.weight.detach().clone()
    changes()
    assert not torch.equal(product.weight >= 0, before >= 0)
    for _ in range(2):
        assert torch.equal(product(a, 1.0), sums_of(product, a))
        assert torch.equal(product.count(a), sums_of(product, a))


def test_a_fast_convolution_goes_back_by_its_last_forward_pass_alone():
    """Its bits are read again: those of another pass would give wrong gradients in silence."""
    _, product, a = made_layer(CONVNET)
    x = a.requires_grad_()
    first, last = product(x, 1.0), product(x, 1.0)
    with pytest.raises(RuntimeError, match=r"conv2: its bits are those of a later forward pass"):
        first.sum().backward()
    last.sum().backward()
    assert x.grad is not None


def test_factors_that_no_step_took_do_not_outlive_the_next_gradients():
    """A step takes the latest gradients, whichever way they were left."""
    net = fast_and_plain(MLP)[0]
    weight = net.blocks[1].product.weight
    net.configure(deferred=True)
    loss_of(net, images(20)).backward()
    net.configure(deferred=False)
    loss_of(net, images(20, seed=1)).backward()
    assert layers.take_factors(weight) is None
    assert weight.grad is not None


TRAINED = {
    "mlp": ("arch.width=70",),
    "convnet": ("arch=convnet", "arch.channels=[16,32]", "arch.fc=[45]"),
}


def trainer_of(folder, words):
    """Five steps an epoch."""
    config = typed(
        "train", "dataset=digits", "trainer.epochs=2", "trainer.batch_size=200",
        "trainer.precision=fast", *words,
    )  # fmt: skip
    return Trainer(config, digits(), torch.device("cpu"), folder)


@pytest.fixture
def threads():
    """Sets the threads of Numba and of torch, and sets them back."""
    before = numba.get_num_threads(), torch.get_num_threads()

    def set_both(of_numba, of_torch):
        numba.set_num_threads(of_numba)
        torch.set_num_threads(of_torch)

    yield set_both
    set_both(*before)


@pytest.mark.parametrize("words", TRAINED.values(), ids=list(TRAINED))
@pytest.mark.parametrize("stop_after", [3, 8])
def test_a_fast_run_stopped_and_resumed_gives_the_same_weights(tmp_path, words, stop_after):
    """In the middle of the first epoch and of the second."""
    through, stopped = (trainer_of(tmp_path / name, words) for name in ("through", "stopped"))
    through.run(StopRequest())
    stop, train_step = StopRequest(), stopped.train_step

    def counted(pixels, labels):
        stop.asked = stopped.epoch * 5 + stopped.step + 1 == stop_after
        return train_step(pixels, labels)

    stopped.train_step = counted
    with pytest.raises(Stopped):
        stopped.run(stop)
    resumed = trainer_of(tmp_path / "stopped", words)
    torch.manual_seed(99)
    resumed.restore()
    resumed.run(StopRequest())
    assert_same(weights(through), weights(resumed))


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core: no second thread")
@pytest.mark.parametrize("words", TRAINED.values(), ids=list(TRAINED))
def test_the_weights_do_not_depend_on_the_number_of_threads(tmp_path, threads, words):
    found = []
    for count in (1, 2):
        threads(count, 1)
        trainer = trainer_of(tmp_path / str(count), words)
        trainer.run(StopRequest())
        found.append(weights(trainer))
    assert_same(*found)
