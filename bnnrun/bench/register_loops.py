"""Loops of one kind of instruction in registers, for the limits that they set (limits.py).

And one that copies memory. Each of the others keeps several chains of operations that do not wait
for each other, from different starts: one chain alone would measure how long an operation takes,
not how many are done at once, and equal ones the compiler would make one.
"""

from bnnrun.gemm.bits import LANES
from bnnrun.gemm.compiled import kernel, njit, prange
from bnnrun.gemm.simd_f32 import add_floats, permute
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


@njit(forceinline=True)
def _triple(n, x):
    return add(n, popcount(xor(n, x)))


@njit(forceinline=True)
def _four_triples(a, b, c, d, x):
    return _triple(a, x), _triple(b, x), _triple(c, x), _triple(d, x)


@kernel()
def triples(threads, rounds, words, starts, out):
    """12 chains in each thread: n += popcount(n ^ x), from `starts` (12, 16) to `out`."""
    for thread in prange(threads):
        x, to = load(words, 0), thread * starts.size
        a, b, c, d = load(starts, 0), load(starts, 16), load(starts, 32), load(starts, 48)
        e, f, g, h = load(starts, 64), load(starts, 80), load(starts, 96), load(starts, 112)
        i, j, k, m = load(starts, 128), load(starts, 144), load(starts, 160), load(starts, 176)
        for _ in range(rounds):
            a, b, c, d = _four_triples(a, b, c, d, x)
            e, f, g, h = _four_triples(e, f, g, h, x)
            i, j, k, m = _four_triples(i, j, k, m, x)
        for n in (a, b, c, d, e, f, g, h, i, j, k, m):
            store(out, to, n)
            to += LANES


@njit(forceinline=True)
def _two(ones, words, j, y):
    """Two words into the ones, as in gemm/tiles.py.

    The words are loaded, though a register would do: a loaded word may be overwritten, one that
    is needed again would first be copied, and copies take the place of operations; loads do not.
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


@kernel()
def sum_choices(threads, rounds, words, starts, out):
    """12 chains in each thread: x += table[index], from `starts` (12, 16) to `out`.

    `words` holds the table, then indices (4, 12, 16): loads take no place of other operations.
    """
    for thread in prange(threads):
        t, to = load(words, 0), thread * starts.size
        a, b, c, d = load(starts, 0), load(starts, 16), load(starts, 32), load(starts, 48)
        e, f, g, h = load(starts, 64), load(starts, 80), load(starts, 96), load(starts, 112)
        k, m, n, p = load(starts, 128), load(starts, 144), load(starts, 160), load(starts, 176)
        for r in range(rounds):
            i = 16 + 192 * (r % 4)
            a = add_floats(a, permute(t, load(words, i)))
            b = add_floats(b, permute(t, load(words, i + 16)))
            c = add_floats(c, permute(t, load(words, i + 32)))
            d = add_floats(d, permute(t, load(words, i + 48)))
            e = add_floats(e, permute(t, load(words, i + 64)))
            f = add_floats(f, permute(t, load(words, i + 80)))
            g = add_floats(g, permute(t, load(words, i + 96)))
            h = add_floats(h, permute(t, load(words, i + 112)))
            k = add_floats(k, permute(t, load(words, i + 128)))
            m = add_floats(m, permute(t, load(words, i + 144)))
            n = add_floats(n, permute(t, load(words, i + 160)))
            p = add_floats(p, permute(t, load(words, i + 176)))
        for x in (a, b, c, d, e, f, g, h, k, m, n, p):
            store(out, to, x)
            to += 16


@kernel()
def sum_byte_products(threads, rounds, words, starts, out):
    """The same with x += the four products of each lane: bytes unsigned, then signed."""
    for thread in prange(threads):
        t, to = load(words, 0), thread * starts.size
        a, b, c, d = load(starts, 0), load(starts, 16), load(starts, 32), load(starts, 48)
        e, f, g, h = load(starts, 64), load(starts, 80), load(starts, 96), load(starts, 112)
        k, m, n, p = load(starts, 128), load(starts, 144), load(starts, 160), load(starts, 176)
        for r in range(rounds):
            i = 16 + 192 * (r % 4)
            a = add_byte_products(a, t, load(words, i))
            b = add_byte_products(b, t, load(words, i + 16))
            c = add_byte_products(c, t, load(words, i + 32))
            d = add_byte_products(d, t, load(words, i + 48))
            e = add_byte_products(e, t, load(words, i + 64))
            f = add_byte_products(f, t, load(words, i + 80))
            g = add_byte_products(g, t, load(words, i + 96))
            h = add_byte_products(h, t, load(words, i + 112))
            k = add_byte_products(k, t, load(words, i + 128))
            m = add_byte_products(m, t, load(words, i + 144))
            n = add_byte_products(n, t, load(words, i + 160))
            p = add_byte_products(p, t, load(words, i + 176))
        for x in (a, b, c, d, e, f, g, h, k, m, n, p):
            store(out, to, x)
            to += 16


@kernel()
def copy(source, target):
    """target = source."""
    for i in prange(source.size):
        target[i] = source[i]
