"""Products by other libraries: right, or not timed; told of where they are absent."""

from importlib.util import find_spec

import numpy as np
import pytest

from bnnrun.bench import gemm, peers
from bnnrun.bench.measure import measure
from bnnrun.errors import RunError
from bnnrun.gemm.bits import pack

INSTALLED = [name for name in peers.METHODS if not peers.absent([name])]
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
