"""The limits of the machine: that the loops count what they say, in chains of their own."""

import numpy as np
import pytest

from bnnrun.bench import limits, measure
from bnnrun.errors import RunError

ROUNDS = 5


@pytest.fixture
def words():
    """Sets, chains, words of a round, lanes."""
    shape = (limits.SETS, limits.ADDER_CHAINS, limits.ADDER_WORDS, 16)
    return np.random.default_rng(3).integers(0, 2**32, shape, dtype=np.uint32)


def random_starts(*shape):
    return np.random.default_rng(4).integers(0, 2**32, (*shape, 16), dtype=np.uint32)


def ran(loop, words, starts, threads=2):
    out = np.zeros((threads, *starts.shape), np.uint32)
    loop(threads, ROUNDS, words.ravel(), starts.ravel(), out.ravel())
    assert (out == out[0]).all()
    return out[0]


def test_a_triple_is_xor_popcount_and_addition(words):
    starts = random_starts(limits.TRIPLE_CHAINS)
    n, first = [[int(value) for value in chain] for chain in starts], words[0, 0, 0]
    for _ in range(ROUNDS):
        n = [[v + (v ^ int(x)).bit_count() for v, x in zip(c, first, strict=True)] for c in n]
    assert (ran(limits._triples, words, starts) == np.array(n) % 2**32).all()


def test_the_adders_count_every_bit_of_sixteen_words_a_round(words):
    starts = random_starts(limits.ADDER_CHAINS, 5)
    starts[:, 4] = 0
    after = ran(limits._adders, words, starts)
    differ = words ^ words[0, 0, 0]
    for c, (chain, start) in enumerate(zip(after, starts, strict=True)):
        for lane in range(16):
            before = sum(int(start[i, lane]).bit_count() << i for i in range(4))
            held = sum(int(chain[i, lane]).bit_count() << i for i in range(4))
            counted = sum(int(chain[4, lane]).to_bytes(4, "little"))
            rounds = [differ[r % limits.SETS, c, :, lane] for r in range(ROUNDS)]
            bits = sum(int(word).bit_count() for of_round in rounds for word in of_round)
            assert held + 16 * counted == before + bits


@pytest.mark.parametrize("loop", ["_triples", "_adders"])
def test_chains_from_different_starts_end_differently(words, loop):
    """Equal chains could be computed once, and the rate would be that of fewer."""
    chains = limits.TRIPLE_CHAINS if loop == "_triples" else limits.ADDER_CHAINS
    starts = random_starts(chains) if loop == "_triples" else random_starts(chains, 5)
    after = ran(getattr(limits, loop), words, starts)
    assert len({chain.tobytes() for chain in after}) == chains


def test_every_limit_is_right_and_rated():
    found = {limit.implementation: limit for limit in limits.limits()}
    assert {limits.TRIPLES, limits.COPY} <= found.keys()
    for limit in found.values():
        assert limit.check() is None
        assert (limit.macs > 0) is (limit.implementation != limits.COPY)


@pytest.mark.parametrize("loop", ["_triples", "_adders"])
def test_a_limit_that_skips_a_round_is_not_timed(monkeypatch, loop):
    whole = getattr(limits, loop)

    def shorter(threads, rounds, *arrays):
        whole(threads, max(0, rounds - 1), *arrays)

    monkeypatch.setattr(limits, loop, shorter)
    monkeypatch.setattr(limits, "HAS_POPCOUNT", False)
    with pytest.raises(RunError, match="wrong answer, not timed: after 1 rounds"):
        measure.measure(limits.limits(), rounds=3, seconds=0.1)


def test_a_copy_that_leaves_something_is_not_timed(monkeypatch):
    def all_but_one(source, target):
        target[:-1] = source[:-1]

    monkeypatch.setattr(limits, "_copy", all_but_one)
    with pytest.raises(RunError, match="the copy differs"):
        measure.measure(limits.limits(), rounds=3, seconds=0.1)
