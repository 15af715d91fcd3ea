"""Products by other libraries: right, or not timed; told of where they are absent."""

from importlib.util import find_spec

import numpy as np
import pytest
from command import configure

from bnnrun.bench import gemm, network, peer_networks, peers
from bnnrun.bench.measure import measure
from bnnrun.errors import RunError
from bnnrun.gemm.bits import pack

INSTALLED = [name for name, of in peers.METHODS.items() if not peers.absent(of.libraries)]
needs_peers = pytest.mark.skipif(not INSTALLED, reason=f"no library of peers: {peers.INSTALL}")


def task(m, n, k):
    rng = np.random.default_rng([m, n, k])
    a, w = (rng.choice(np.float32([-1, 1]), (rows, k)) for rows in (m, n))
    return gemm.Task(pack(a), pack(w), k)


@needs_peers
@pytest.mark.parametrize(("m", "n", "k"), [(37, 19, 96), (1, 130, 100), (64, 64, 1000)])
def test_each_library_computes_the_product(m, n, k):
    with peers.products(task(m, n, k)) as competitors:
        methods = {each.implementation.method for each in competitors}
        unfit = {name for name in INSTALLED if k % peers.METHODS[name].unit}
        assert methods == set(INSTALLED) - unfit
        timings = measure(competitors, rounds=3, seconds=0)
    for competitor in competitors:
        assert competitor.remark, "the version"
        assert 0 < timings[competitor.implementation].minimum_s < 10


@needs_peers
def test_a_library_with_a_wrong_answer_is_not_timed(monkeypatch):
    name = INSTALLED[0]
    method = peers.METHODS[name]
    off = method._replace(answer=lambda out, k: method.answer(out, k) + 2)
    monkeypatch.setitem(peers.METHODS, name, off)
    with (
        peers.products(task(20, 30, 64)) as competitors,
        pytest.raises(RunError, match="wrong answer, not timed: row 0, column 0"),
    ):
        measure(competitors, rounds=3, seconds=0)


def test_libraries_that_are_not_installed_are_named(bnnrun, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    words = "workload=gemm", "m=5", "n=7", "k=33", "seconds=0.1", "kernel=peers"
    outcome = bnnrun("bench", *words)
    assert outcome.status == 0, outcome.err
    out = " ".join(outcome.out.split())
    assert f"numkong, openvino, onnxruntime, onnx: {peers.INSTALL}" in out
    assert "k=33: openvino takes multiples of 8" in out
    assert "NumKong," not in out


def test_every_library_of_a_method_can_be_looked_for():
    """By the name that pip installs it by, which is its module's."""
    for name in INSTALLED:
        assert all(find_spec(library) for library in peers.METHODS[name].libraries)


RUNTIMES = [name for name, of in peer_networks.METHODS.items() if not peers.absent(of.libraries)]
needs_runtimes = pytest.mark.skipif(
    not RUNTIMES, reason=f"no runtime of other libraries: {peers.INSTALL}"
)
NETWORKS = {
    "mlp": ("workload=mlp", "arch.width=72", "batch=6"),
    "convnet": ("workload=convnet", "dataset=cifar10", "arch.channels=[16,40]", "arch.fc=[40]",
                "batch=6"),
}  # fmt: skip


@needs_runtimes
@pytest.mark.parametrize("name", NETWORKS)
def test_each_runtime_gives_the_labels(name):
    with network.competitors(configure("bench", *NETWORKS[name], "kernel=peers")) as (
        competitors,
        _,
    ):
        others = [each for each in competitors if each.implementation.is_library]
        assert {each.implementation.method for each in others} == set(RUNTIMES)
        timings = measure(others, rounds=3, seconds=0)
    assert all(0 < timing.minimum_s < 10 for timing in timings.values())


@needs_runtimes
def test_a_runtime_with_another_label_is_not_timed(monkeypatch):
    expected = network._expected
    monkeypatch.setattr(network, "_expected", lambda *arguments: (expected(*arguments) + 1) % 10)
    config = configure("bench", *NETWORKS["mlp"], "kernel=peers")
    with network.competitors(config) as (competitors, _):
        others = [each for each in competitors if each.implementation.is_library]
        exact = [each for each in others if peer_networks.METHODS[each.implementation.method].exact]
        for each in exact:
            with pytest.raises(RunError, match="wrong answer, not timed: image 0: another class"):
                measure([each], rounds=3, seconds=0)


@needs_runtimes
def test_a_runtime_is_not_given_sizes_that_it_does_not_take():
    words = "workload=mlp", "arch.width=70", "batch=6", "kernel=peers"
    with network.competitors(configure("bench", *words)) as (competitors, _):
        methods = {
            each.implementation.method for each in competitors if each.implementation.is_library
        }
        assert methods == set(RUNTIMES) - {"openvino_binary"}


def test_more_bits_are_not_given_to_other_runtimes():
    words = *NETWORKS["mlp"], "kernel=peers", "binarization.activation_bits=2"
    with network.competitors(configure("bench", *words)) as (competitors, _):
        assert not any(each.implementation.is_library for each in competitors)
