"""Kernels without machine code of Numba's wrappers; others' functions as Numba makes them."""

import numba
import numpy as np
import pytest
from numba.core.codegen import JITCodeLibrary, JitEngine

from bnnrun.gemm.compiled import Kernel, prange
from bnnrun.gemm.kernel_library import WRAPPERS, without_wrappers

INPUT = np.arange(1000.0)


@pytest.fixture
def made(monkeypatch):
    """The names of the modules that Numba makes machine code of, in order."""
    names = []
    add_module = JitEngine.add_module

    def add(engine, module):
        names.append(module.name)
        return add_module(engine, module)

    monkeypatch.setattr(JitEngine, "add_module", add)
    return names


def double(a, out):
    for i in prange(a.size):
        out[i] = 2 * a[i]


def twice(a, out):
    for i in prange(a.size):
        out[i] = 2 * a[i]
    for i in prange(a.size):
        out[i] += out[0]


def wrappers(names):
    return [name for name in names if name.startswith(WRAPPERS)]


@pytest.mark.parametrize("function", [double, twice])
def test_wrappers_are_part_of_the_kernel_alone(function, made, monkeypatch):
    monkeypatch.setattr("bnnrun.gemm.compiled.open_cache", lambda *_: None)
    out = np.zeros(1000)
    Kernel(function, {})(INPUT, out)
    np.testing.assert_array_equal(out, 2 * INPUT)
    assert made and not wrappers(made)


def test_elsewhere_numba_is_as_it_was(made):
    """The names of the wrappers are still Numba's, and its own functions keep theirs."""
    with without_wrappers():
        pass
    out = np.zeros(1000)
    numba.njit(double, parallel=True)(INPUT, out)
    np.testing.assert_array_equal(out, 2 * INPUT)
    assert len(wrappers(made)) == len(WRAPPERS)


def test_after_a_fault_too(made, monkeypatch):
    def wrong(a, out):
        for i in prange(a.size):
            out[i] = a.no_such_attribute

    monkeypatch.setattr("bnnrun.gemm.compiled.open_cache", lambda *_: None)
    with pytest.raises(numba.TypingError):
        Kernel(wrong, {})(INPUT, np.zeros(1000))
    library = numba.core.registry.cpu_target.target_context.codegen().create_library("any")
    assert type(library) is JITCodeLibrary
