"""Every engine against the reference, nn/engine.py: layers, positions, sizes, options, optimizers.

A case is a choice of each axis. By default every pair of choices stands in some case; with
`--exhaustive` all of them are tried. Where a choice between two numbers would hang on a rounding,
see following.py.
"""

import copy
import itertools

import pytest
import torch
from emulated_device import EmulatedDevice
from following import CANCELLED, GRADIENT, Edges, Following
from networks import ODD, SPEC, TWELVE, images, labels_of, network, randomize_norms, typed
from tape import TapedDevice, put_in_place

from bnnrun.engine.cpu import engine as cpu_engine
from bnnrun.engine.cpu import norm_act, update, winograd
from bnnrun.engine.cpu.engine import CpuEngine
from bnnrun.engine.cuda import captured_step
from bnnrun.engine.cuda.engine import CudaEngine
from bnnrun.nn.optim import make_optimizer

# No width is a multiple of a word or a panel. Convolutions are of whole tiles (8x8, 4x4) and not
# (6x6); pooled sizes are even and odd; of odd ones the last row belongs to no window.
CONVNET = "arch=convnet"
ARCHS = {
    "mlp": (SPEC, "arch.width=70", "arch.dropout_input=0", "arch.dropout_hidden=0"),
    "dropout": (SPEC, "arch.width=70", "arch.dropout_input=0.2", "arch.dropout_hidden=0.5"),
    "8x8": (SPEC, CONVNET, "arch.channels=[16,48,32,16]", "arch.fc=[45]"),
    "12x12": (TWELVE, CONVNET, "arch.channels=[16,16,16,32]", "arch.fc=[25]"),
    "7x10": (ODD, CONVNET, "arch.channels=[16,16,16]", "arch.fc=[25]"),
}
BINARIZATIONS = {
    "binary": (),
    "sampled": ("binarization=stochastic",),
    "sampled weights": ("binarization.weights=stochastic",),
    "identity": ("binarization.estimator=identity",),
    "approx": ("binarization.estimator=approx",),
    "binary weights": ("binarization=weights",),
    "float": ("binarization=none",),
    "1W2A": ("binarization.activation_bits=2",),
    "2W2A": ("binarization.weight_bits=2", "binarization.activation_bits=2"),
    "2W3A": ("binarization.weight_bits=2", "binarization.activation_bits=3"),
}
NORMS = {
    "batch": (),
    "shift": ("norm=shift",),
    "shift output": ("norm=shift", "norm.output=shift"),
}
# At rates by which three steps turn signs in every layer and no number grows out of bounds.
ADAM, ADAMAX = ("optimizer.lr=0.1",), ("optimizer=shift_adamax", "optimizer.lr=0.1")
OPTIMIZERS = {
    "adam": ADAM,
    "adam, unclipped": (*ADAM, "optimizer.clip=none", "optimizer.scale_gamma=true"),
    "sgd": ("optimizer=sgd", "optimizer.lr=1"),
    "adamax, code": (*ADAMAX, "optimizer.rule=code", "optimizer.clip=all"),
    "adamax, paper": (*ADAMAX, "optimizer.rule=paper"),
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
SEED = 5
BATCH = 30
BATCHES = 100  # more than are ever looked at for one without an activation on an edge
STEPS = 3  # on a GPU the first is as it comes, the second is captured, the third is replayed


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        pairs = pairwise()
        whole = metafunc.config.getoption("exhaustive")
        tried = [
            pytest.param(
                case,
                on,
                id=f"{on}: {', '.join(case)}",
                marks=() if case in pairs else pytest.mark.exhaustive,
            )
            for case in (WHOLE if whole else pairs)
            for on in ("cpu", "cuda", *(MISSING if case[0] in {"mlp", "dropout"} else ()))
        ]
        metafunc.parametrize(("case", "on"), tried)


class Pair:
    """An engine and the reference, with the same parameters."""

    def __init__(self, case, make):
        (self.spec, *words), *others = (axis[name] for axis, name in zip(AXES, case, strict=True))
        self.words = tuple(itertools.chain(words, *others))
        self.engine = make(*self.parts())
        self.reference = Following(self.engine, *self.parts())

    def parts(self):
        """(network, optimizer, seed)."""
        net = plant_zeros(randomize_norms(network(*self.words, kind=self.spec)))
        return net, make_optimizer(net, typed("arch=mlp", *self.words).optimizer), SEED

    def batch(self, seed):
        """The first images, from `seed` on, by which no activation lies on an edge; labels."""
        network, t = self.engine.network, self.engine.optimizer.t + 1
        fused = {b.index for b in network.blocks if self.engine.describe(b).fused_norm}
        for number in range(BATCHES):
            x = images(BATCH, seed + STEPS * number, self.spec)
            edges = Edges(network, SEED, t, fused)
            with torch.no_grad():
                edges.forward(x)
            if edges.count == 0:
                return x, labels_of(x, network)
        raise AssertionError(f"each of {BATCHES} minibatches has an activation on an edge")

    def align(self):
        """Give the reference what the engine has."""
        self.load(self.reference, state_of(self.engine))

    @staticmethod
    def load(engine, state):
        engine.network.load_state_dict(state[0])
        engine.optimizer.load_state_dict(state[1])


def plant_zeros(net):
    """Give each layer weights, and each hidden one a channel of activations, that are 0 itself."""
    with torch.no_grad():
        for block in net.blocks:
            block.product.weight.view(-1)[:2] = torch.tensor([0.0, -0.0])
            if not block.layer.last:
                block.norm.gamma[0] = block.norm.beta[0] = 0
    return net


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


def test_training_is_the_references(case, make_fast):
    """Step by step: pre-activations, loss, gradients, weights, statistics; evaluation; resumed too.

    Before each step the reference gets what the engine has: cached signs must be those of the
    weights that the engine's own update left, captured or not. What is resumed after a step must
    go on as if it had never stopped, bit by bit.
    """
    pair, batches = Pair(case, make_fast), []
    initial = [w.detach().clone() for w in binary_weights(pair.engine)]
    for step in range(STEPS):
        pair.align()
        batches.append(pair.batch(step))
        found, expected = (e.step(*batches[-1]).item() for e in (pair.engine, pair.reference))
        assert found == pytest.approx(expected, rel=1e-6)
        assert_same_moments(pair)
        assert_within_reach(pair)
        for name, theirs in pair.reference.network.named_buffers():
            ours = pair.engine.network.get_buffer(name)
            assert theirs is None or off(ours, theirs) < 1e-5, name
        if step == 0:
            saved = state_of(pair.engine)
    for w, before in zip(binary_weights(pair.engine), initial, strict=True):
        assert ((w >= 0) != (before >= 0)).any()
    assert_same_evaluation(pair, exact=case[1] not in {"float", "binary weights"})
    resumed = Pair(case, make_fast)
    resumed.load(resumed.engine, saved)
    for batch in batches[1:]:
        resumed.engine.step(*batch)
    state = pair.engine.network.state_dict()
    for name, t in resumed.engine.network.state_dict().items():
        assert t is None or torch.equal(t, state[name]), name


def binary_weights(engine):
    return [b.product.weight for b in engine.network.blocks if b.product.binary]


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


def assert_same_moments(pair):
    """By the norm of each, and by the largest where what is left of a gradient are roundings."""
    theirs = states(pair.reference)
    largest = max(first_moment(state).norm() for state in theirs)
    assert largest.isfinite()
    names = [name for name, _ in pair.engine.network.named_parameters()]
    for name, found, expected in zip(names, states(pair.engine), theirs, strict=True):
        assert found.keys() == expected.keys() and found["t"] == expected["t"]
        m = first_moment(expected)
        most = GRADIENT * m.norm() + CANCELLED * largest
        assert (first_moment(found) - m).norm() <= most, name


def assert_within_reach(pair):
    """Each number of the parameters and of the moments, by following.Reach."""
    engine, reaches = pair.engine, pair.reference.reaches
    parameters = engine.network.named_parameters()
    for (name, w), state, by_name in zip(parameters, states(engine), reaches, strict=True):
        for tensor, reach in by_name.items():
            assert reach.holds({"w": w, **state}[tensor]), f"{name}, {tensor}"


def minus_of_zero(kernel):
    """Sign as r > 0."""

    def wrong(p, affine, relu, thresholds, a):
        kernel(p, affine, relu, thresholds, a)
        a[(p - affine[0]) * affine[1] + affine[2] == 0] = -1

    return wrong


def off_in_a_channel(kernel):
    """g_s of one channel a hundredth too large."""

    def wrong(*arguments):
        kernel(*arguments)
        arguments[-1][:, 1] *= 1.01

    return wrong


def without_last_row(kernel):
    """g_a of a convolution that ends a row of pixels too early."""

    def wrong(*arguments):
        kernel(*arguments)
        _, count, height, *_, out = arguments
        out.reshape(count, height, -1)[:, -1] = 0

    return wrong


def without_decay(kernel):
    """Adam whose v keeps what it had."""

    def wrong(*arguments):
        *streams, constants, clip = arguments
        constants[2] = 1
        kernel(*streams, constants, clip)

    return wrong


@pytest.mark.parametrize(
    ("module", "kernel", "wrong", "where"),
    [
        (norm_act, "activation_kernel", minus_of_zero, "conv2"),
        (norm_act, "gradient_kernel", off_in_a_channel, "stack.0.product.weight"),
        (winograd, "transform_outputs", without_last_row, "stack.0.product.weight"),
        (update, "adam_kernel", without_decay, "stack.0.product.weight, v"),
    ],
    ids=lambda of: getattr(of, "__name__", None),
)
def test_a_wrong_kernel_is_seen(monkeypatch, module, kernel, wrong, where):
    """The sweep above can fail, and says where: at the first of what is compared."""
    monkeypatch.setattr(module, kernel, wrong(getattr(module, kernel)))
    with pytest.raises(AssertionError, match=f"^{where}"):
        test_training_is_the_references(("8x8", "binary", "batch", "adam"), CpuEngine)


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
