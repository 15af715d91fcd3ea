"""What the processor could do: the operations of the XNOR product and nothing else, and memory.

A product cannot be faster than its operations on words that are in registers or the first cache;
measured in the same run and in turns with the kernels, a limit drifts with the machine as they do.
The limit is that of the cheapest exact sequence of operations, of a vector of words:

    xor, popcount, add                              3
    carry-save adder for two, popcount, add         2.5: three ternary operations, which overwrite
                                                    an operand, and a popcount and an addition
    four levels of carry-save adders, popcount      without a vector popcount

and no more than the loads of the tile (gemm/tiles.py) allow.

Each loop keeps several chains of operations that do not wait for each other, from different
starts: one chain alone would measure how long an operation takes, not how many are done at once,
and equal ones the compiler would make one.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bnnrun.bench.measure import Competitor
from bnnrun.gemm.bits import TILE_PANELS, Words
from bnnrun.gemm.compiled import kernel, njit, prange, thread_count
from bnnrun.gemm.simd_f32 import add_floats, permute
from bnnrun.gemm.tiles import TILE_ROWS, full_adder
from bnnrun.gemm.vector import (
    HAS_POPCOUNT,
    HAS_TERNARY,
    LANES,
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
from bnnrun.roles import Implementation, Role

BITS = 32 * LANES  # of a vector
TRIPLES = Implementation(Role.roofline, "xor_popcount_add")
CARRIES = Implementation(Role.roofline, "carry_save_popcount")
ADDERS = Implementation(Role.roofline, "carry_save_adders")
LOADS = Implementation(Role.roofline, "vector_loads")
COPY = Implementation(Role.roofline, "memory_copy")
TRIPLE_CHAINS, CARRY_CHAINS, ADDER_CHAINS, LOAD_CHAINS = 12, 6, 3, 12
TRIPLE_WORDS, CARRY_WORDS, ADDER_WORDS = 1, 2, 16  # that a chain counts in a round
# A tile multiplies four vectors of W by four words of A: that many products for each load, of which
# a chain makes two in a round.
LOAD_WORDS = 2 * TILE_ROWS * TILE_PANELS / (TILE_ROWS + TILE_PANELS)
SETS, LOAD_SETS = 4, 8  # of words, that take turns
ROUNDS = 2_000_000
COPIED = 64 * 2**20  # bytes: past every cache of this size


@njit(forceinline=True)
def _triple(n, x):
    return add(n, popcount(xor(n, x)))


@njit(forceinline=True)
def _four_triples(a, b, c, d, x):
    return _triple(a, x), _triple(b, x), _triple(c, x), _triple(d, x)


@kernel()
def _triples(threads, rounds, words, starts, out):
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
def _carries(threads, rounds, words, starts, out):
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
def _loads(threads, rounds, words, starts, out):
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
def _adders(threads, rounds, words, starts, out):
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
def _copy(source, target):
    for i in prange(source.size):
        target[i] = source[i]


def _after_triples(rounds: int, words: Words, starts: Words) -> Words:
    """What `_triples` leaves, by its definition."""
    n = starts
    for _ in range(rounds):
        n = n + np.bitwise_count(n ^ words.reshape(-1, LANES)[0])
    return n


def _of_round(words: Words, i: int, chains: int, sets: int) -> Words:
    """The words that the chains take in round i, two each: (chains, 2, 16)."""
    flat = words.reshape(-1, LANES)[: sets * chains * 2]
    of_round: Words = flat.reshape(sets, chains, 2, LANES)[i % sets]
    return of_round


def _carried(chains: Words) -> NDArray[np.int64]:
    """Bits that the carry-save adders hold, of each chain and lane."""
    return np.bitwise_count(chains[..., 0, :]) + 2 * chains[..., 1, :].astype(np.int64)


def _after_carries(rounds: int, words: Words, starts: Words) -> NDArray[np.int64]:
    """The popcount that `_carries` has summed, of each chain and lane."""
    first = words.reshape(-1, LANES)[0]
    taken = (_of_round(words, i, CARRY_CHAINS, SETS) for i in range(rounds))
    return _carried(starts) + sum(np.bitwise_count(w ^ first).sum(1, np.int64) for w in taken)


def _after_loads(rounds: int, words: Words, starts: Words) -> Words:
    """What `_loads` leaves."""
    n = starts.copy()
    for i in range(rounds):
        n ^= np.bitwise_xor.reduce(_of_round(words, i, LOAD_CHAINS, LOAD_SETS), axis=1)
    return n


def _counted(chains: Words) -> NDArray[np.int64]:
    """Bits that the adders hold, of each chain and lane; the last value counts in bytes."""
    held = np.bitwise_count(chains[..., :-1, :]).astype(np.int64)
    count = chains[..., -1, :].copy().view(np.uint8).reshape(*held.shape[:-2], LANES, 4)
    weights = 2 ** np.arange(held.shape[-2])
    return (weights[:, None] * held).sum(-2) + 16 * count.sum(-1, dtype=np.int64)


def _after_adders(rounds: int, words: Words, starts: Words) -> NDArray[np.int64]:
    """Bits that `_adders` has counted, of each chain and lane."""
    differ = np.bitwise_count(words ^ words[0, 0, 0]).astype(np.int64).sum(axis=2)
    return _counted(starts) + sum(differ[i % SETS] for i in range(rounds))


def _in_registers(
    implementation: Implementation,
    loop: Callable[..., None],
    starts: Words,
    *,
    words_of_round: float,
    held: Callable[[Words], NDArray[np.integer]],
    expected: Callable[..., NDArray[np.integer]],
) -> Competitor:
    """A loop of operations, checked after a few rounds by definition."""
    threads = thread_count()
    shape = (SETS, ADDER_CHAINS, ADDER_WORDS, LANES)
    words = np.random.default_rng(1).integers(0, 2**32, shape, dtype=np.uint32)
    out = np.empty((threads, *starts.shape), np.uint32)
    run = partial(loop, threads)
    arguments = words.ravel(), starts.ravel(), out.ravel()

    def check() -> str | None:
        for rounds in (0, 1, SETS + 1):
            run(rounds, *arguments)
            if (held(out) != expected(rounds, words, starts)).any():
                return f"after {rounds} rounds the registers do not hold what was counted"
        return None

    bits = float(len(starts) * words_of_round * BITS * threads)
    return Competitor(implementation, lambda: run(ROUNDS, *arguments), check, macs=bits * ROUNDS)


def limits() -> list[Competitor]:
    """The limits, as competitors whose rates are those of ±1 multiply-accumulates."""
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 2**32, (TRIPLE_CHAINS, LANES), dtype=np.uint32)
    competitors = [
        _in_registers(
            TRIPLES,
            _triples,
            starts,
            words_of_round=TRIPLE_WORDS,
            held=lambda chains: chains,
            expected=_after_triples,
        ),
    ]
    if HAS_TERNARY:
        starts = rng.integers(0, 2**32, (LOAD_CHAINS, LANES), dtype=np.uint32)
        competitors.append(
            _in_registers(
                LOADS,
                _loads,
                starts,
                words_of_round=LOAD_WORDS,
                held=lambda chains: chains,
                expected=_after_loads,
            )
        )
    if HAS_POPCOUNT:
        starts = rng.integers(0, 2**32, (CARRY_CHAINS, 2, LANES), dtype=np.uint32)
        starts[:, 1] >>= 8  # the counts, that must not wrap around
        competitors.append(
            _in_registers(
                CARRIES,
                _carries,
                starts,
                words_of_round=CARRY_WORDS,
                held=_carried,
                expected=_after_carries,
            )
        )
    else:
        starts = rng.integers(0, 2**32, (ADDER_CHAINS, 5, LANES), dtype=np.uint32)
        starts[:, -1] = 0  # the counts
        competitors.append(
            _in_registers(
                ADDERS,
                _adders,
                starts,
                words_of_round=ADDER_WORDS,
                held=_counted,
                expected=_after_adders,
            )
        )
    source = rng.random(COPIED // 8)
    target = np.empty_like(source)

    def copied() -> str | None:
        target.fill(0)
        _copy(source, target)
        return None if np.array_equal(source, target) else "the copy differs"

    return [*competitors, Competitor(COPY, lambda: _copy(source, target), copied)]


def limit(rates: dict[Implementation, float]) -> float:
    """The rate that no popcount product exceeds: of the cheapest operations, or of the loads."""
    operations = max(rates[each] for each in (TRIPLES, CARRIES, ADDERS) if each in rates)
    return min(operations, rates.get(LOADS, operations))
