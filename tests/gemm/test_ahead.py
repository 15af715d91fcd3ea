"""Kernels compiled before they are called: which, by whom, and what if another process fails."""

import os
import subprocess
import sys
from collections import deque
from threading import Thread
from threading import enumerate as enumerate_threads

import numpy as np
import pytest
from packed_networks import FIRSTS, NETWORKS, packed_model, pixels_for

from bnnrun.gemm import ahead, kernel_cache
from bnnrun.gemm.ahead import compile_ahead
from bnnrun.gemm.compiled import noted_calls
from bnnrun.runtime.network import PackedNetwork

SOURCE = """
from bnnrun.gemm.compiled import kernel, prange

@kernel()
def double(a, out):
    for i in prange(a.size):
        out[i] = 2 * a[i]

@kernel()
def triple(a, out):
    for i in prange(a.size):
        out[i] = 3 * a[i]

@kernel()
def square(a, out):
    for i in prange(a.size):
        out[i] = a[i] * a[i]

@kernel()
def negate(a, out):
    for i in prange(a.size):
        out[i] = -a[i]
"""
NAMES = ("double", "triple", "square", "negate")
INPUT = np.arange(10.0)


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """A module with kernels that no cache holds, which other processes can import too."""
    (tmp_path / "some_kernels.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "some_kernels", raising=False)
    kernel_cache._digest.cache_clear()
    import some_kernels

    yield some_kernels
    sys.modules.pop("some_kernels")
    kernel_cache._digest.cache_clear()


def call_all(kernels):
    out = {name: np.zeros(10) for name in NAMES}
    for name, array in out.items():
        getattr(kernels, name)(INPUT, array)
    return out


def check(kernels):
    out = call_all(kernels)
    np.testing.assert_array_equal(out["double"], 2 * INPUT)
    np.testing.assert_array_equal(out["triple"], 3 * INPUT)
    np.testing.assert_array_equal(out["square"], INPUT**2)
    np.testing.assert_array_equal(out["negate"], -INPUT)


def counts(kernels):
    """How many kernels this process compiled, and how many it took from the cache."""
    stats = [getattr(kernels, name).dispatcher.stats for name in NAMES]
    compiled = sum(sum(s.cache_misses.values()) for s in stats)
    return compiled, sum(sum(s.cache_hits.values()) for s in stats)


def test_a_noted_kernel_does_not_run(kernels):
    with noted_calls() as calls:
        out = call_all(kernels)
    assert not any(array.any() for array in out.values())
    assert [call.kernel for call in calls] == [getattr(kernels, name) for name in NAMES]
    assert not any(call.is_kept() for call in calls)
    check(kernels)
    assert all(call.is_kept() for call in calls)


def test_another_thread_goes_on_computing(kernels):
    out = np.zeros(10)
    with noted_calls() as calls:
        thread = Thread(target=lambda: kernels.double(INPUT, out))
        thread.start()
        thread.join()
    assert not calls
    np.testing.assert_array_equal(out, 2 * INPUT)


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_processes_share_the_kernels_out(kernels, processes):
    compile_ahead(lambda: call_all(kernels), processes)
    before = compiled, loaded = counts(kernels)
    assert compiled + loaded == len(NAMES)
    assert compiled == len(NAMES) or processes > 1
    check(kernels)
    assert counts(kernels) == before


def test_what_is_kept_is_loaded_and_no_process_started(kernels, monkeypatch):
    compile_ahead(lambda: call_all(kernels), 1)
    for name in NAMES:
        getattr(kernels, name).forget()
    monkeypatch.setattr(ahead, "worker", None)
    compile_ahead(lambda: call_all(kernels), 2)
    assert counts(kernels) == (0, 4)


def test_another_process_compiles_what_it_takes(kernels):
    queue = deque(range(4))
    with noted_calls() as noted:
        call_all(kernels)
    ahead._help(list(noted), queue)
    assert not queue
    assert all(call.is_kept() for call in noted)
    check(kernels)
    assert counts(kernels) == (0, 4)


def test_where_no_process_can_be_started_this_one_compiles(kernels, monkeypatch):
    def fails(task):
        raise OSError(11, "no more processes")

    monkeypatch.setattr(ahead, "worker", fails)
    compile_ahead(lambda: call_all(kernels), 4)
    check(kernels)
    assert counts(kernels) == (4, 0)


def test_a_process_that_ends_costs_no_kernel(kernels, monkeypatch, caplog):
    """It cannot import them."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path[1:]))
    caplog.set_level("INFO", "bnnrun.kernels")
    with noted_calls() as noted:
        call_all(kernels)
    ahead._help(list(noted), deque(range(4)))
    assert "no other process compiles: a process that compiles kernels ended" in caplog.text
    assert "some_kernels" in caplog.text
    compile_ahead(lambda: call_all(kernels), 2)
    check(kernels)


def test_a_fault_of_a_kernel_is_raised_and_no_process_left(kernels, monkeypatch):
    def fails(call):
        raise ValueError("this kernel is wrong")

    monkeypatch.setattr(ahead.Call, "compile", fails)
    with pytest.raises(ValueError, match="this kernel is wrong"):
        compile_ahead(lambda: call_all(kernels), 2)
    assert not [t for t in enumerate_threads() if ahead._help.__name__ in t.name]


def test_nothing_is_noted_after_a_fault(kernels):
    with pytest.raises(ZeroDivisionError), noted_calls():
        1 / 0  # noqa: B018
    check(kernels)


@pytest.mark.parametrize("first", FIRSTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_one_image_calls_the_kernels_of_many(name, first, made_calls):
    model = packed_model(*NETWORKS[name])
    network = PackedNetwork(model, first)
    with noted_calls() as noted:
        network.scores(np.zeros((1, *model.spec.image_shape), np.uint8))
    assert noted
    for count in (1, 3, 70):
        made = made_calls(network.scores, pixels_for(model, count))
        assert made == set(noted)


def test_the_second_process_compiles_nothing(runs_dir, tmp_path):
    words = ["eval", f"model={runs_dir / 'convnet'}", "dataset=digits", "threads=2"]
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    said = []
    for _ in range(2):
        command = [sys.executable, "-m", "bnnrun", *words, f"results_dir={tmp_path}"]
        done = subprocess.run(
            command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        said.append(done.stderr.count("compiling kernels"))
    assert said == [1, 0]
