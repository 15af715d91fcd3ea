"""What the processor could do: the operations of the XNOR product and nothing else, and memory.

A product cannot be faster than its operations on words that are in registers or the first cache;
measured in the same run and in turns with the kernels, a roofline drifts with the machine as they
do.

The roofline is that of the cheapest exact sequence of operations, of a vector of words:

    xor, popcount, add                              3
    carry-save adder for two, popcount, add         2.5: three ternary operations, which overwrite
                                                    an operand, and a popcount and an addition
    four levels of carry-save adders, popcount      without a vector popcount

and no more than the loads of the tile (gemm/tiles.py) allow.

The loops are in register_loops.py; what each must leave in the registers is defined here, and is
checked before a roofline is measured.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.bench.measure import Competitor
from bnnrun.bench.register_loops import (
    FLOAT_CHAINS,
    LOAD_SETS,
    SETS,
    adders,
    carries,
    copy,
    loads,
    sum_byte_products,
    sum_choices,
    sum_float_products,
    triples,
)
from bnnrun.gemm.bits import LANES, TILE_PANELS, Words, aligned
from bnnrun.gemm.compiled import thread_count
from bnnrun.gemm.instructions import HAS_BYTE_PRODUCT, HAS_POPCOUNT, HAS_TERNARY
from bnnrun.gemm.lut_gemm import HAS_LUT
from bnnrun.gemm.tiles import TILE_ROWS
from bnnrun.roles import Implementation, Role

VECTOR_BITS = 32 * LANES  # of a vector
TRIPLES = Implementation(Role.roofline, "xor_popcount_add")
CARRIES = Implementation(Role.roofline, "carry_save_popcount")
ADDERS = Implementation(Role.roofline, "carry_save_adders")
LOADS = Implementation(Role.roofline, "vector_loads")
COPY = Implementation(Role.roofline, "memory_copy")
LUT_SUMS = Implementation(Role.roofline, "lut_sums")
BYTE_PRODUCTS = Implementation(Role.roofline, "byte_products")
FLOAT_PRODUCTS = Implementation(Role.roofline, "float32_multiply_add")
TRIPLE_CHAINS, CARRY_CHAINS, ADDER_CHAINS, LOAD_CHAINS = 24, 6, 3, 12
TRIPLE_WORDS, CARRY_WORDS, ADDER_WORDS = 1, 2, 16  # that a chain counts in a round
# A tile multiplies four vectors of W by four words of A: that many products for each load, of which
# a chain makes two in a round.
LOAD_WORDS = 2 * TILE_ROWS * TILE_PANELS / (TILE_ROWS + TILE_PANELS)
SUM_CHAINS = 24
OF_AN_INSTRUCTION = 4 * LANES  # multiply-accumulates that a choice, or one on bytes, stands for
ROUNDS = 2_000_000
COPIED = 64 * 2**20  # bytes: past every cache of this size


def _after_triples(rounds: int, words: Words, starts: Words) -> Words:
    """What `triples` leaves, by its definition."""
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
    """The popcount that `carries` has summed, of each chain and lane."""
    first = words.reshape(-1, LANES)[0]
    rounds_words = (_of_round(words, i, CARRY_CHAINS, SETS) for i in range(rounds))
    counts = [np.bitwise_count(w ^ first).sum(1, np.int64) for w in rounds_words]
    total: NDArray[np.int64] = np.sum([_carried(starts), *counts], axis=0, dtype=np.int64)
    return total


def _after_loads(rounds: int, words: Words, starts: Words) -> Words:
    """What `loads` leaves."""
    n = starts.copy()
    for i in range(rounds):
        n ^= np.bitwise_xor.reduce(_of_round(words, i, LOAD_CHAINS, LOAD_SETS), axis=1)
    return n


def _counted(chains: Words) -> NDArray[np.int64]:
    """Bits that the adders hold, of each chain and lane; the last value counts in bytes."""
    held = np.bitwise_count(chains[..., :-1, :]).astype(np.int64)
    count = chains[..., -1, :].copy().view(np.uint8).reshape(*held.shape[:-2], LANES, 4)
    weights = 2 ** np.arange(held.shape[-2])
    total: NDArray[np.int64] = (weights[:, None] * held).sum(-2)
    total += 16 * count.sum(-1, dtype=np.int64)
    return total


def _after_adders(rounds: int, words: Words, starts: Words) -> NDArray[np.int64]:
    """The popcount that `adders` has summed, of each chain and lane."""
    differ = np.bitwise_count(words ^ words[0, 0, 0]).astype(np.int64).sum(axis=2)
    added = [differ[i % SETS] for i in range(rounds)]
    total: NDArray[np.int64] = np.sum([_counted(starts), *added], axis=0, dtype=np.int64)
    return total


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
    words = aligned(shape, np.uint32)  # as W is: a load that crosses two cache lines is two
    words[...] = np.random.default_rng(1).integers(0, 2**32, shape, dtype=np.uint32)
    out = np.empty((threads, *starts.shape), np.uint32)
    run = partial(loop, threads)
    arguments = words.ravel(), starts.ravel(), out.ravel()

    def check() -> str | None:
        for rounds in (0, 1, SETS + 1):
            run(rounds, *arguments)
            if (held(out) != expected(rounds, words, starts)).any():
                return f"after {rounds} rounds the registers do not hold what was counted"
        return None

    bits = float(len(starts) * words_of_round * VECTOR_BITS * threads)
    return Competitor(implementation, lambda: run(ROUNDS, *arguments), check, macs=bits * ROUNDS)


def rooflines() -> list[Competitor]:
    """The rooflines, as competitors whose rates are those of ±1 multiply-accumulates."""
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 2**32, (TRIPLE_CHAINS, LANES), dtype=np.uint32)
    competitors = [
        _in_registers(
            TRIPLES,
            triples,
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
                loads,
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
                carries,
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
                adders,
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
        copy(source, target)
        return None if np.array_equal(source, target) else "the copy differs"

    return [*competitors, Competitor(COPY, lambda: copy(source, target), copied)]


def popcount_roofline(rates: dict[Implementation, float]) -> float:
    """The rate that no popcount product exceeds: of the cheapest operations, or of the loads."""
    operations = max(rates[each] for each in (TRIPLES, CARRIES, ADDERS) if each in rates)
    return min(operations, rates.get(LOADS, operations))


def lut_sums() -> list[Competitor]:
    """Additions of what is chosen from a table; none where the processor cannot choose."""
    if not HAS_LUT:
        return []
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 16, (SETS, SUM_CHAINS, LANES), dtype=np.int32)
    table = rng.integers(-9, 9, LANES).astype(np.float32)
    starts = rng.integers(-9, 9, (SUM_CHAINS, LANES)).astype(np.float32)
    return [_summing(LUT_SUMS, sum_choices, (table, indices), starts, table[indices])]


def byte_products() -> list[Competitor]:
    """Products of bytes, four an instruction; none where the processor has no such."""
    if not HAS_BYTE_PRODUCT:
        return []
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (LANES, 4), dtype=np.uint8)
    w = rng.integers(-128, 128, (SETS, SUM_CHAINS, LANES, 4), dtype=np.int8)
    added = (a.astype(np.int32) * w).sum(-1, dtype=np.int32)
    starts = rng.integers(-9, 9, (SUM_CHAINS, LANES), dtype=np.int32)
    return [_summing(BYTE_PRODUCTS, sum_byte_products, (a, w), starts, added)]


def float_products() -> Competitor:
    """Float32 products, each added to a sum at once: what no product of matrices exceeds."""
    rng = np.random.default_rng(0)
    t = np.full(LANES, 3, np.float32)
    x = rng.integers(-9, 9, (SETS, FLOAT_CHAINS, LANES)).astype(np.float32)
    starts = rng.integers(-9, 9, (FLOAT_CHAINS, LANES)).astype(np.float32)
    return _summing(
        FLOAT_PRODUCTS, sum_float_products, (t, x), starts, t * x, of_an_instruction=LANES
    )


def _summing(
    implementation: Implementation,
    loop: Callable[..., None],
    words: tuple[NDArray[Any], NDArray[Any]],
    starts: NDArray[Any],
    added: NDArray[Any],
    *,
    of_an_instruction: int = OF_AN_INSTRUCTION,
) -> Competitor:
    """A loop, checked by what each of its four kinds of rounds adds: `added` (4, chains, 16)."""
    threads = thread_count()
    out = np.empty((threads, *starts.shape), starts.dtype)
    together = aligned((sum(array.nbytes for array in words) // 4,), np.int32)
    np.concatenate([array.ravel().view(np.int32) for array in words], out=together)
    flat = [array.ravel() for array in (together, starts, out)]

    def check() -> str | None:
        for rounds in (0, 1, 7):
            loop(threads, rounds, *flat)
            expected = starts + sum(added[r % SETS] for r in range(rounds))
            if (out != expected).any():
                return f"after {rounds} rounds the registers do not hold what was added"
        return None

    macs = float(len(starts) * of_an_instruction * threads) * ROUNDS
    return Competitor(implementation, lambda: loop(threads, ROUNDS, *flat), check, macs=macs)
