"""Every engine against the reference, nn/engine.py: layers, positions, sizes, options, optimizers.

A case is a choice of each axis. By default every pair of choices stands in some case; with
`--exhaustive` all of them are tried.
"""

import copy
import itertools

import pytest
import torch
from emulated_device import EmulatedDevice
from networks import ODD, SPEC, TWELVE, images, labels_of, network, randomize_norms, typed
from tape import TapedDevice, put_in_place

from bnnrun.engine.cpu import engine as cpu_engine
from bnnrun.engine.cpu import update
from bnnrun.engine.cpu.engine import CpuEngine
from bnnrun.engine.cuda import captured_step
from bnnrun.engine.cuda.engine import CudaEngine
from bnnrun.nn.engine import Engine
from bnnrun.nn.optim import make_optimizer

# No width is a multiple of a word or a panel. Convolutions are of whole tiles (8x8, 4x4) and not
# (6x6); pooled sizes are even and odd; of odd ones the last row belongs to no window.
CONVNET = "arch=convnet"
ARCHS = {
    "mlp": (SPEC, "arch.width=70", "arch.dropout_input=0", "arch.dropout_hidden=0"),
    "dropout": (SPEC, "arch.width=70", "arch.dropout_input=0.2", "arch.dropout_hidden=0.5"),
    "8x8": (SPEC, CONVNET, "arch.channels=[16,48,32,16]", "arch.fc=[45]"),
    "12x12": (TWELVE, CONVNET, "arch.channels=[16,16,16,32]", "arch.fc=[9]"),
    "7x10": (ODD, CONVNET, "arch.channels=[16,16,16]", "arch.fc=[9]"),
}
BINARIZATIONS = {
    "binary": (),
    "sampled": ("binarization=stochastic",),
    "sampled weights": ("binarization.weights=stochastic",),
    "identity": ("binarization.estimator=identity",),
    "approx": ("binarization.estimator=approx",),
    "binary weights": ("binarization=weights",),
    "float": ("binarization=none",),
}
NORMS = {
    "batch": (),
    "shift": ("norm=shift",),
    "shift output": ("norm=shift", "norm.output=shift"),
}
OPTIMIZERS = {
    "adam": (),
    "adam, unclipped": ("optimizer.clip=none", "optimizer.scale_gamma=true"),
    "sgd": ("optimizer=sgd",),
    "adamax, code": ("optimizer=shift_adamax", "optimizer.rule=code", "optimizer.clip=all"),
    "adamax, paper": ("optimizer=shift_adamax", "optimizer.rule=paper"),
}
AXES = ARCHS, BINARIZATIONS, NORMS, OPTIMIZERS
WHOLE = list(itertools.product(*AXES))


def pairs_of(case):
    return set(itertools.combinations(enumerate(case), 2))


def pairwise():
    """Cases in which each pair of choices stands: again and again that with most new pairs."""
    left, cases = set().union(*map(pairs_of, WHOLE)), []
    while left:
        best = max(WHOLE, key=lambda case: len(pairs_of(case) & left))
        cases.append(best)
        left -= pairs_of(best)
    return cases


# What the processor has not, in turn: instructions for fully connected layers, all of them.
MISSING = {
    "cpu without byte products": {"HAS_BYTES": (cpu_engine, update)},
    "cpu without vectors of 16": {"HAS_BYTES": (cpu_engine, update), "HAS_REALS": (update,)},
    "cpu without LUT": {"HAS_LUT": (cpu_engine,)},
}
# The largest rounding of an engine is that of TF32, 2^-11 of a number, and the 16-bit integers',
# 2^-14 of an output's largest gradient. What is added over a batch, and back through some layers,
# rounds to less than eight times that of its norm.
ROUNDED = 2.0**-8
BATCH = 30
STEPS = 3  # on a GPU the first is as it comes, the second is captured, the third is replayed


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        cases = WHOLE if metafunc.config.getoption("exhaustive") else pairwise()
        tried = [
            pytest.param(case, on, id=f"{on}: {', '.join(case)}")
            for case in cases
            for on in ("cpu", "cuda", *(MISSING if case[0] in {"mlp", "dropout"} else ()))
        ]
        metafunc.parametrize(("case", "on"), tried)


class Pair:
    """An engine and the reference, with the same parameters."""

    def __init__(self, case, make):
        (self.spec, *words), *others = (axis[name] for axis, name in zip(AXES, case, strict=True))
        self.words = tuple(itertools.chain(words, *others))
        self.engine, self.reference = self.make(make), self.make(Engine)

    def make(self, make):
        net = randomize_norms(network(*self.words, kind=self.spec))
        optimizer = make_optimizer(net, typed("arch=mlp", *self.words).optimizer)
        for block in net.blocks:
            if block.product.binary:  # three steps must turn signs
                optimizer.param_groups[3 * block.index]["lr"] *= 10
        return make(net, optimizer, 5)

    def batch(self, seed):
        x = images(BATCH, seed, self.spec)
        return x, labels_of(x, self.engine.network)

    def align(self):
        """Give the reference what the engine has."""
        self.load(self.reference, state_of(self.engine))

    @staticmethod
    def load(engine, state):
        engine.network.load_state_dict(state[0])
        engine.optimizer.load_state_dict(state[1])


def state_of(engine):
    """As a checkpoint holds it."""
    return copy.deepcopy((engine.network.state_dict(), engine.optimizer.state_dict()))


def cuda(monkeypatch):
    """The engine of a GPU: its kernels emulated, its captured step a tape."""
    device = TapedDevice((9, 0))
    monkeypatch.setattr(captured_step, "WARM", 1)

    def make(net, optimizer=None, seed=0):
        engine = CudaEngine(net, optimizer, seed, device=device)

        def state():
            moments = (t for s in optimizer.state.values() for t in s.values()
                       if isinstance(t, torch.Tensor))  # fmt: skip
            buffers = (signs.buffer for signs in engine.signs.values())
            return [*net.state_dict().values(), *moments, *buffers]

        put_in_place(monkeypatch, device, state)
        return engine

    return make


@pytest.fixture
def make_fast(on, monkeypatch):
    """Makes the engine of a device."""
    if on == "cuda":
        return cuda(monkeypatch)
    for name, modules in MISSING.get(on, {}).items():
        for module in modules:
            monkeypatch.setattr(module, name, False)
    return CpuEngine


def off(found, expected):
    """By the norm."""
    size = expected.double().norm().item()
    return (found.double() - expected.double()).norm().item() / (size or 1.0)


def test_pre_activations_are_the_references(case, make_fast):
    """To the last bit where they are integers: the masks of dropout, the sampled weights too."""
    pair = Pair(case, make_fast)
    a = pair.reference.network.input(pair.batch(0)[0])
    blocks = [engine.network.blocks for engine in (pair.engine, pair.reference)]
    for engine in (pair.engine, pair.reference):
        engine.advance()
    for ours, theirs in zip(*blocks, strict=True):
        x = pair.engine.dropout(ours, a.detach())
        y = pair.reference.dropout(theirs, a.detach())
        assert torch.equal(x, y)
        found, expected = pair.engine.product(ours, x), pair.reference.product(theirs, y)
        assert found.shape == expected.shape
        if theirs.binary_input and theirs.product.binary and theirs.dropout in {0, 0.5}:
            assert torch.equal(found, expected)
        else:
            assert off(found, expected) < 1e-5  # float32 sums in another order; Winograd's
        a = pair.reference.norm_act(theirs, expected)


def test_training_is_the_references(case, make_fast):
    """Step by step: loss, gradients, weights, running statistics; evaluation, and resumed too.

    Before each step the reference gets what the engine has: cached signs must be those of the
    weights that the engine's own update left, captured or not. What is resumed after a step must
    go on as if it had never stopped, bit by bit.
    """
    pair = Pair(case, make_fast)
    for step in range(STEPS):
        pair.align()
        before = [p.detach().clone() for p in pair.reference.network.parameters()]
        x, labels = pair.batch(step)
        found, expected = (e.step(x, labels).item() for e in (pair.engine, pair.reference))
        assert found == pytest.approx(expected, rel=1e-3)
        assert_same_moments(pair)
        assert_same_parameters(pair, before)
        for name, theirs in pair.reference.network.named_buffers():
            ours = pair.engine.network.get_buffer(name)
            assert theirs is None or off(ours, theirs) < 1e-3, name
        if step == 0:
            saved = state_of(pair.engine)
    assert_same_evaluation(pair, exact=case[1] not in {"float", "binary weights"})
    resumed = Pair(case, make_fast)
    resumed.load(resumed.engine, saved)
    for step in range(1, STEPS):
        resumed.engine.step(*resumed.batch(step))
    state = pair.engine.network.state_dict()
    for name, t in resumed.engine.network.state_dict().items():
        assert t is None or torch.equal(t, state[name]), name


def assert_same_evaluation(pair, exact):
    """To the last bit where weights are binary, and what they are multiplied with."""
    pair.align()
    x = images(45, 9, pair.spec)
    (found, shares), (expected, theirs) = (
        engine.evaluate(x) for engine in (pair.engine, pair.reference)
    )
    assert found.dtype == expected.dtype == torch.float64
    if exact:
        assert torch.equal(found, expected)
        assert shares == theirs
    else:
        assert off(found, expected) < 1e-4


def states(engine):
    return [engine.optimizer.state[p] for p in engine.network.parameters()]


def first_moment(state):
    """The mean of gradients that the optimizer keeps."""
    return state["u" if "u" in state else "m"]


def largest_moment(engine):
    """By its norm, of all parameters.

    Without an estimator's clip a batch norm takes the beta before it back: of g_beta, which is 0,
    nothing is left but the roundings of much larger numbers.
    """
    return max(first_moment(state).norm() for state in states(engine))


def assert_same_moments(pair):
    largest = largest_moment(pair.reference)
    for ours, theirs in zip(states(pair.engine), states(pair.reference), strict=True):
        assert ours.keys() == theirs.keys() and ours["t"] == theirs["t"]
        m = first_moment(theirs)
        assert (first_moment(ours) - m).norm() <= ROUNDED * m.norm() + 2.0**-16 * largest


def assert_same_parameters(pair, before):
    """Where a moment is not small beside the largest: near 0 its sign is that of a rounding.

    One in a hundred may differ: a rounding moves what stands at a step of AP2.
    """
    rounded = 2.0**-12 * largest_moment(pair.reference)
    parameters = (e.network.parameters() for e in (pair.engine, pair.reference))
    for p, q, w, state in zip(*parameters, before, states(pair.reference), strict=True):
        moment = first_moment(state).abs()
        moved = (q - w).abs().max()
        differs = (p - q).abs() > moved / 16 + 1e-6
        counts = moment > moment.max() / 64 + rounded
        assert (differs & counts).double().mean() <= 0.01


def test_the_pairs_of_all_choices_stand_in_some_case():
    covered = set().union(*map(pairs_of, pairwise()))
    assert covered == set().union(*map(pairs_of, WHOLE))
    assert len(pairwise()) < len(WHOLE) / 10


def test_the_emulated_device_is_what_the_engine_launches_on():
    """So that the sweep above is of CUDA's kernels and not of torch's own operations."""
    net = network("arch.width=40", "arch.depth=2", "arch.dropout_hidden=0")
    device = EmulatedDevice((9, 0))
    engine = CudaEngine(net, make_optimizer(net, typed().optimizer), device=device)
    engine.advance()
    engine.compute(images(20), labels_of(images(20), net))
    launched = {(launch.kernel, *launch.defines) for launch in device.launches}
    assert ("adam", ("CLIP", None), ("SIGNS", None)) in launched
    assert len([launch for launch in launched if launch[0] == "norm_sign"]) == 6
