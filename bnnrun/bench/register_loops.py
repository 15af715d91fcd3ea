"""Loops of one kind of instruction in registers, for the rooflines that they set (roofline.py).

And one that copies memory. Each of the others keeps several chains of operations that do not wait
for each other, from different starts: one chain alone would measure how long an operation takes,
not how many are done at once, and equal ones the compiler would make one.
"""

import numpy as np

from bnnrun.gemm.bits import LANES
from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.instructions import HAS_TERNARY
from bnnrun.gemm.simd_f32 import add_floats, multiply_add, permute
from bnnrun.gemm.tiles import full_adder
from bnnrun.gemm.vector import (
    add,
    add_byte_products,
    add_bytes,
    carry,
    load,
    popcount,
    popcount_bytes,
    store,
    xor,
    xor3,
)

SETS, LOAD_SETS = 4, 8  # of words, that take turns
FLOAT_CHAINS = 24 if HAS_TERNARY else 6  # as many as the registers hold


@njit(forceinline=True)
def _six(words, i):
    """Six vectors, from element i on."""
    return (
        load(words, i),
        load(words, i + 16),
        load(words, i + 32),
        load(words, i + 48),
        load(words, i + 64),
        load(words, i + 80),
    )


@njit(forceinline=True)
def _store_six(out, i, values):
    for value in values:
        store(out, i, value)
        i += LANES


@njit(forceinline=True)
def _triple(n, x):
    return add(n, popcount(xor(n, x)))


@njit(forceinline=True)
def _six_triples(n, x):
    return (
        _triple(n[0], x),
        _triple(n[1], x),
        _triple(n[2], x),
        _triple(n[3], x),
        _triple(n[4], x),
        _triple(n[5], x),
    )


@kernel()
def triples(threads, rounds, words, starts, out):
    """24 chains in each thread: n += popcount(n ^ x), from `starts` (24, 16) to `out`.

    With 12 chains a Zen 5 still waits for some of them: a product would pass its roofline.
    """
    for thread in prange(threads):
        x, to = load(words, 0), thread * starts.size
        a, b, c, d = _six(starts, 0), _six(starts, 96), _six(starts, 192), _six(starts, 288)
        for _ in range(rounds):
            a, b = _six_triples(a, x), _six_triples(b, x)
            c, d = _six_triples(c, x), _six_triples(d, x)
        for six in (a, b, c, d):
            _store_six(out, to, six)
            to += 6 * LANES


@njit(forceinline=True)
def _two(ones, words, j, y):
    """Two words into the ones, as in gemm/tiles.py.

    Loaded from the first cache: an operand that stays live costs a move on an ALU port, a load
    does not.
    """
    t = xor3(ones, load(words, j), y)
    s = xor3(t, load(words, j + 16), y)
    return s, carry(t, s, ones)


@njit(forceinline=True)
def _two_and_popcount(chain, words, j, y):
    ones, n = chain
    ones, twos = _two(ones, words, j, y)
    return ones, add(n, popcount(twos))


@kernel()
def carries(threads, rounds, words, starts, out):
    """6 chains in each thread, a carry-save adder and a popcount, from `starts` (6, 2, 16).

    Counts the words of a round that differ from the first word; `words` (sets, 6, 2, 16).
    """
    for thread in prange(threads):
        y, to = load(words, 0), thread * starts.size
        a, b = (load(starts, 0), load(starts, 16)), (load(starts, 32), load(starts, 48))
        c, d = (load(starts, 64), load(starts, 80)), (load(starts, 96), load(starts, 112))
        e, f = (load(starts, 128), load(starts, 144)), (load(starts, 160), load(starts, 176))
        for i in range(rounds):
            j = 192 * (i % SETS)
            a, b = _two_and_popcount(a, words, j, y), _two_and_popcount(b, words, j + 32, y)
            c, d = _two_and_popcount(c, words, j + 64, y), _two_and_popcount(d, words, j + 96, y)
            e, f = _two_and_popcount(e, words, j + 128, y), _two_and_popcount(f, words, j + 160, y)
        for chain in (a, b, c, d, e, f):
            for value in chain:
                store(out, to, value)
                to += LANES


@kernel()
def loads(threads, rounds, words, starts, out):
    """12 chains in each thread: n ^= two vectors loaded, from `starts` (12, 16).

    By ternary operations: of plain ones the compiler would make other sums, before the loop.
    """
    for thread in prange(threads):
        to = thread * starts.size
        a, b, c, d = load(starts, 0), load(starts, 16), load(starts, 32), load(starts, 48)
        e, f, g, h = load(starts, 64), load(starts, 80), load(starts, 96), load(starts, 112)
        k, m, n, p = load(starts, 128), load(starts, 144), load(starts, 160), load(starts, 176)
        for r in range(rounds):
            i = 384 * (r % LOAD_SETS)
            a, b = _two_loads(a, words, i), _two_loads(b, words, i + 32)
            c, d = _two_loads(c, words, i + 64), _two_loads(d, words, i + 96)
            e, f = _two_loads(e, words, i + 128), _two_loads(f, words, i + 160)
            g, h = _two_loads(g, words, i + 192), _two_loads(h, words, i + 224)
            k, m = _two_loads(k, words, i + 256), _two_loads(m, words, i + 288)
            n, p = _two_loads(n, words, i + 320), _two_loads(p, words, i + 352)
        for x in (a, b, c, d, e, f, g, h, k, m, n, p):
            store(out, to, x)
            to += LANES


@njit(forceinline=True)
def _two_loads(n, words, i):
    return xor3(n, load(words, i), load(words, i + 16))


@njit(forceinline=True)
def _four(ones, twos, words, j, y):
    ones, a = _two(ones, words, j, y)
    ones, b = _two(ones, words, j + 32, y)
    twos, fours = full_adder(twos, a, b)
    return ones, twos, fours


@njit(forceinline=True)
def _sixteen(chain, words, j, y):
    ones, twos, fours, eights, n = chain
    ones, twos, a = _four(ones, twos, words, j, y)
    ones, twos, b = _four(ones, twos, words, j + 64, y)
    fours, c = full_adder(fours, a, b)
    ones, twos, a = _four(ones, twos, words, j + 128, y)
    ones, twos, b = _four(ones, twos, words, j + 192, y)
    fours, d = full_adder(fours, a, b)
    eights, e = full_adder(eights, c, d)
    return ones, twos, fours, eights, add_bytes(n, popcount_bytes(e))


@njit(forceinline=True)
def _begin(starts, at):
    return (
        load(starts, at),
        load(starts, at + 16),
        load(starts, at + 32),
        load(starts, at + 48),
        load(starts, at + 64),
    )


@kernel()
def adders(threads, rounds, words, starts, out):
    """The carry-save tree of gemm/tiles.py, three in each thread, from `starts` (3, 5, 16).

    Counts the words of a set that differ from the first word; `words` (sets, 3, 16, 16) is small
    enough for the first cache, and the sets take turns, so that no load is spared.
    """
    for thread in prange(threads):
        y, to = load(words, 0), thread * starts.size
        p, q, r = _begin(starts, 0), _begin(starts, 80), _begin(starts, 160)
        for i in range(rounds):
            j = 768 * (i % SETS)
            p = _sixteen(p, words, j, y)
            q = _sixteen(q, words, j + 256, y)
            r = _sixteen(r, words, j + 512, y)
        for chain in (p, q, r):
            for value in chain:
                store(out, to, value)
                to += LANES


@njit(forceinline=True)
def _six_choices(n, t, x):
    return (
        add_floats(n[0], permute(t, x[0])),
        add_floats(n[1], permute(t, x[1])),
        add_floats(n[2], permute(t, x[2])),
        add_floats(n[3], permute(t, x[3])),
        add_floats(n[4], permute(t, x[4])),
        add_floats(n[5], permute(t, x[5])),
    )


@njit(forceinline=True)
def _six_byte_products(n, t, x):
    return (
        add_byte_products(n[0], t, x[0]),
        add_byte_products(n[1], t, x[1]),
        add_byte_products(n[2], t, x[2]),
        add_byte_products(n[3], t, x[3]),
        add_byte_products(n[4], t, x[4]),
        add_byte_products(n[5], t, x[5]),
    )


@njit(forceinline=True)
def _six_products(n, t, x):
    return (
        multiply_add(x[0], t, n[0]),
        multiply_add(x[1], t, n[1]),
        multiply_add(x[2], t, n[2]),
        multiply_add(x[3], t, n[3]),
        multiply_add(x[4], t, n[4]),
        multiply_add(x[5], t, n[5]),
    )


@kernel()
def sum_choices(threads, rounds, words, starts, out):
    """24 chains in each thread: x += table[index], from `starts` (24, 16) to `out`.

    `words` holds the table, then indices (4, 24, 16): loads take no place of other operations. So
    many chains, for the arithmetic of the loop's counters does on some processors.
    """
    for thread in prange(threads):
        t, to = load(words, 0), thread * starts.size
        a, b, c, d = _six(starts, 0), _six(starts, 96), _six(starts, 192), _six(starts, 288)
        for r in range(rounds):
            i = 16 + 384 * (r % SETS)
            a = _six_choices(a, t, _six(words, i))
            b = _six_choices(b, t, _six(words, i + 96))
            c = _six_choices(c, t, _six(words, i + 192))
            d = _six_choices(d, t, _six(words, i + 288))
        for six in (a, b, c, d):
            _store_six(out, to, six)
            to += 6 * LANES


@kernel()
def sum_byte_products(threads, rounds, words, starts, out):
    """The same with x += the four products of each lane: bytes unsigned, then signed."""
    for thread in prange(threads):
        t, to = load(words, 0), thread * starts.size
        a, b, c, d = _six(starts, 0), _six(starts, 96), _six(starts, 192), _six(starts, 288)
        for r in range(rounds):
            i = 16 + 384 * (r % SETS)
            a = _six_byte_products(a, t, _six(words, i))
            b = _six_byte_products(b, t, _six(words, i + 96))
            c = _six_byte_products(c, t, _six(words, i + 192))
            d = _six_byte_products(d, t, _six(words, i + 288))
        for six in (a, b, c, d):
            _store_six(out, to, six)
            to += 6 * LANES


@kernel()
def sum_float_products(threads, rounds, words, starts, out):
    """FLOAT_CHAINS chains in each thread: n += x · t, from `starts` (chains, 16) to `out`.

    `words` holds sixteen times t, then the x (4, chains, 16), all float32.
    """
    for thread in prange(threads):
        t, to = np.int32(words[0]).view(np.float32), thread * starts.size
        a = b = c = d = _six(starts, 0)
        if FLOAT_CHAINS > 6:
            b, c, d = _six(starts, 96), _six(starts, 192), _six(starts, 288)
        for r in range(rounds):
            i = 16 + 16 * FLOAT_CHAINS * (r % SETS)
            a = _six_products(a, t, _six(words, i))
            if FLOAT_CHAINS > 6:
                b = _six_products(b, t, _six(words, i + 96))
                c = _six_products(c, t, _six(words, i + 192))
                d = _six_products(d, t, _six(words, i + 288))
        _store_six(out, to, a)
        if FLOAT_CHAINS > 6:
            _store_six(out, to + 96, b)
            _store_six(out, to + 192, c)
            _store_six(out, to + 288, d)


@kernel()
def copy(source, target):
    """target = source."""
    for i in prange(source.size):
        target[i] = source[i]
