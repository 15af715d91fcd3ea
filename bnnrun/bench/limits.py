"""What the processor could do: the operations of the XNOR product in registers alone, and memory.

A product cannot be faster than its operations without a load, a store or a loop's end; measured
in the same run and in turns with the kernels, a limit drifts with the machine as they do.
"""

import numba
import numpy as np
from numba import njit, prange

from bnnrun.bench.measure import Competitor
from bnnrun.gemm.vector import (
    HAS_POPCOUNT,
    add,
    add_bytes,
    carry,
    load,
    majority,
    popcount,
    popcount_bytes,
    store,
    xor,
    xor3,
)

BITS = 512  # of a vector: 16 lanes of 32
TRIPLES, ADDERS, COPY = (
    "limit: xor, popcount, add",
    "limit: carry-save adders",
    "limit: copying memory",
)
COPIED = 64 * 2**20  # bytes: past every cache of this size


@njit(forceinline=True)
def _triple(n, x):
    return add(n, popcount(xor(n, x)))


@njit(parallel=True, cache=True)
def _triples(threads, rounds, out):
    """12 independent chains of xor, popcount and addition in each thread."""
    for t in prange(threads):
        x = load(out, 0)
        a = b = c = d = e = f = g = h = i = j = k = m = x
        for _ in range(rounds):
            a, b, c, d = _triple(a, x), _triple(b, x), _triple(c, x), _triple(d, x)
            e, f, g, h = _triple(e, x), _triple(f, x), _triple(g, x), _triple(h, x)
            i, j, k, m = _triple(i, x), _triple(j, x), _triple(k, x), _triple(m, x)
        r = xor3(xor3(xor3(a, b, c), xor3(d, e, f), g), xor3(h, i, j), xor3(k, m, x))
        store(out, 16 * t, r)


@njit(forceinline=True)
def _two(ones, x, y, z):
    """Two words into the ones, as in gemm/cpu.py, of registers."""
    t = xor3(ones, x, y)
    s = xor3(t, y, z)
    return s, carry(t, s, ones)


@njit(forceinline=True)
def _four(ones, twos, x, y, z):
    ones, c = _two(ones, x, y, z)
    ones, d = _two(ones, y, z, x)
    return ones, xor3(twos, c, d), majority(twos, c, d)


@njit(parallel=True, cache=True)
def _adders(threads, rounds, out):
    """The carry-save tree of gemm/cpu.py over 16 words, of registers."""
    for t in prange(threads):
        x, y, z = load(out, 0), load(out, 16), load(out, 32)
        ones = twos = fours = eights = n = x
        for _ in range(rounds):
            ones, twos, a = _four(ones, twos, x, y, z)
            ones, twos, b = _four(ones, twos, z, x, y)
            c, fours = majority(fours, a, b), xor3(fours, a, b)
            ones, twos, a = _four(ones, twos, y, z, x)
            ones, twos, b = _four(ones, twos, x, z, y)
            d, fours = majority(fours, a, b), xor3(fours, a, b)
            e, eights = majority(eights, c, d), xor3(eights, c, d)
            n = add_bytes(n, popcount_bytes(e))
        store(out, 16 * t, xor3(xor3(ones, twos, fours), eights, n))


@njit(parallel=True, cache=True)
def _copy(source, target):
    for i in prange(source.size):
        target[i] = source[i]


def limits() -> list[Competitor]:
    """The limits, as competitors whose rates are those of ±1 multiply-accumulates."""
    threads = numba.get_num_threads()
    out = np.arange(16 * max(3, threads), dtype=np.uint32)
    rounds = 1_000_000

    def right() -> None:
        return None

    found = [
        Competitor(
            TRIPLES, lambda: _triples(threads, rounds, out), right,
            macs=12.0 * BITS * rounds * threads,
        )
    ]  # fmt: skip
    if not HAS_POPCOUNT:
        found.append(
            Competitor(
                ADDERS, lambda: _adders(threads, rounds, out), right,
                macs=16.0 * BITS * rounds * threads,
            )
        )  # fmt: skip
    source = np.zeros(COPIED // 8)
    target = np.empty_like(source)

    return [*found, Competitor(COPY, lambda: _copy(source, target), right)]
