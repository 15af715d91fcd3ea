"""The rooflines of the machine: that the loops count what they say, in chains of their own."""

import numpy as np
import pytest

from bnnrun.bench import measure, register_loops, roofline
from bnnrun.errors import RunError

ROUNDS = 5


@pytest.fixture
def words():
    """Sets, chains, words of a round, lanes."""
    shape = (register_loops.SETS, roofline.ADDER_CHAINS, roofline.ADDER_WORDS, 16)
    return np.random.default_rng(3).integers(0, 2**32, shape, dtype=np.uint32)


def random_starts(*shape):
    return np.random.default_rng(4).integers(0, 2**32, (*shape, 16), dtype=np.uint32)


def ran(loop, words, starts, threads=2):
    out = np.zeros((threads, *starts.shape), np.uint32)
    loop(threads, ROUNDS, words.ravel(), starts.ravel(), out.ravel())
    assert (out == out[0]).all()
    return out[0]


def test_a_triple_is_xor_popcount_and_addition(words):
    starts = random_starts(roofline.TRIPLE_CHAINS)
    n, first = [[int(value) for value in chain] for chain in starts], words[0, 0, 0]
    for _ in range(ROUNDS):
        n = [[v + (v ^ int(x)).bit_count() for v, x in zip(c, first, strict=True)] for c in n]
    assert (ran(register_loops.triples, words, starts) == np.array(n) % 2**32).all()


def test_the_adders_count_every_bit_of_sixteen_words_a_round(words):
    starts = random_starts(roofline.ADDER_CHAINS, 5)
    starts[:, 4] = 0
    after = ran(register_loops.adders, words, starts)
    differ = words ^ words[0, 0, 0]
    for c, (chain, start) in enumerate(zip(after, starts, strict=True)):
        for lane in range(16):
            before = sum(int(start[i, lane]).bit_count() << i for i in range(4))
            held = sum(int(chain[i, lane]).bit_count() << i for i in range(4))
            counted = sum(int(chain[4, lane]).to_bytes(4, "little"))
            rounds = [differ[r % register_loops.SETS, c, :, lane] for r in range(ROUNDS)]
            bits = sum(int(word).bit_count() for of_round in rounds for word in of_round)
            assert held + 16 * counted == before + bits


def test_a_carry_save_adder_counts_every_bit_of_two_words_a_round(words):
    starts = random_starts(roofline.CARRY_CHAINS, 2)
    starts[:, 1] >>= 8
    after = ran(register_loops.carries, words, starts)
    flat = [[int(word) for word in vector] for vector in words.reshape(-1, 16)]
    for c, (chain, start) in enumerate(zip(after, starts, strict=True)):
        for lane in range(16):
            before, held = (
                int(x[0, lane]).bit_count() + 2 * int(x[1, lane]) for x in (start, chain)
            )
            at = [
                12 * (r % register_loops.SETS) + 2 * c + i for r in range(ROUNDS) for i in range(2)
            ]
            assert held == before + sum((flat[i][lane] ^ flat[0][lane]).bit_count() for i in at)


def test_a_load_is_loaded(words):
    starts, flat = random_starts(roofline.LOAD_CHAINS), words.reshape(8, 12, 2, 16)
    expected = starts.copy()
    for r in range(ROUNDS):
        expected ^= flat[r, :, 0] ^ flat[r, :, 1]
    assert (ran(register_loops.loads, words, starts) == expected).all()


def test_the_limit_is_of_the_cheapest_operations_or_of_the_loads():
    rates = {roofline.TRIPLES: 3.0, roofline.CARRIES: 4.0}
    assert roofline.popcount_roofline(rates) == 4
    assert roofline.popcount_roofline({roofline.TRIPLES: 3.0, roofline.ADDERS: 2.0}) == 3
    assert roofline.popcount_roofline({**rates, roofline.LOADS: 3.5}) == 3.5
    assert roofline.popcount_roofline({**rates, roofline.LOADS: 9.0}) == 4


@pytest.mark.parametrize(
    ("loop", "shape"),
    [
        ("triples", (roofline.TRIPLE_CHAINS,)),
        ("carries", (roofline.CARRY_CHAINS, 2)),
        ("adders", (roofline.ADDER_CHAINS, 5)),
        ("loads", (roofline.LOAD_CHAINS,)),
    ],
)
def test_chains_from_different_starts_end_differently(words, loop, shape):
    """Equal chains could be computed once, and the rate would be that of fewer."""
    starts, chains = random_starts(*shape), shape[0]
    after = ran(getattr(register_loops, loop), words, starts)
    assert len({chain.tobytes() for chain in after}) == chains


def test_every_limit_is_right_and_rated():
    found = {limit.implementation: limit for limit in roofline.rooflines()}
    assert {roofline.TRIPLES, roofline.COPY} <= found.keys()
    for limit in found.values():
        assert limit.check() is None
        assert (limit.macs > 0) is (limit.implementation != roofline.COPY)


@pytest.mark.parametrize("loop", ["triples", "carries", "adders", "loads"])
def test_a_limit_that_skips_a_round_is_not_timed(monkeypatch, loop):
    whole = getattr(register_loops, loop)

    def shorter(threads, rounds, *arrays):
        whole(threads, max(0, rounds - 1), *arrays)

    monkeypatch.setattr(roofline, loop, shorter)
    monkeypatch.setattr(roofline, "HAS_POPCOUNT", loop != "adders")
    monkeypatch.setattr(roofline, "HAS_TERNARY", True)
    with pytest.raises(RunError, match="wrong answer, not timed: after 1 rounds"):
        measure.measure(roofline.rooflines(), rounds=3, seconds=0.1)


def test_float_products_are_right_rated_and_not_timed_where_they_skip_one(monkeypatch):
    products = roofline.float_products()
    assert products.check() is None
    assert products.macs > 0
    whole = register_loops.sum_float_products

    def shorter(threads, rounds, *arrays):
        whole(threads, max(0, rounds - 1), *arrays)

    monkeypatch.setattr(roofline, "sum_float_products", shorter)
    assert "after 1 rounds" in roofline.float_products().check()


def test_a_copy_that_leaves_something_is_not_timed(monkeypatch):
    def all_but_one(source, target):
        target[:-1] = source[:-1]

    monkeypatch.setattr(roofline, "copy", all_but_one)
    with pytest.raises(RunError, match="the copy differs"):
        measure.measure(roofline.rooflines(), rounds=3, seconds=0.1)
