"""The one function that times: check, warm up, time in turns."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bnnrun.errors import RunError
from bnnrun.roles import Implementation, shown

SHORT_S = 0.1  # of a call that the state of the caches makes slower by much


@dataclass(frozen=True)
class Competitor:
    """Something to time.

    Attributes:
        implementation: role and variant, as they stand in the record
        remark: what of it changes from run to run: a library's version, the rows that are timed
        call:  does the work once
        check: None if a call's answer is right, else what is wrong with it
        wait:  returns when the device is idle, so that the clock covers all of the work
        macs:  multiply-accumulates of ±1 of a call, for its rate; 0 where there is no such number
        roofline: multiply-accumulates a second that the device's instructions of this kind allow;
               0 where it is measured, or not known
        timed: makes one call and gives its seconds by another clock: the device's, or that of a
               process of its own; None: by the wall clock
        memory: bytes that its calls have held at most; None where it is not told apart
    """

    implementation: Implementation
    call: Callable[[], object]
    check: Callable[[], str | None]
    wait: Callable[[], None] = lambda: None
    macs: float = 0.0
    roofline: float = 0.0
    timed: Callable[[], float] | None = None
    memory: Callable[[], int] | None = None
    remark: str = ""

    @property
    def name(self) -> str:
        """As readers see it."""
        return shown(self.implementation, self.remark)


@dataclass(frozen=True)
class Timing:
    """Wall times of the counted calls.

    Attributes:
        spread: interquartile range over the median: how noisy the machine was
    """

    times_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return statistics.median(self.times_s)

    @property
    def minimum_s(self) -> float:
        return min(self.times_s)

    @property
    def count(self) -> int:
        return len(self.times_s)

    @property
    def spread(self) -> float:
        low, _, high = statistics.quantiles(self.times_s, n=4, method="inclusive")
        return (high - low) / self.median_s


Timings = dict[Implementation, Timing]
Details = dict[Implementation, dict[str, Any]]  # more of each record
Explain = Callable[[Timings], Details]


def explain_nothing(timings: Timings) -> Details:
    """No more to say than the timings."""
    return {}


def measure(competitors: Sequence[Competitor], rounds: int, seconds: float) -> Timings:
    """Time each competitor once a round, the order turning from round to round.

    In turns, because the speed of a shared machine drifts: a ratio of two medians then compares
    the same minutes. A short call comes right after an untimed one of the same competitor, so that
    its time does not depend on what the previous competitor left in the caches. At least 3 rounds
    are made; after `seconds` no new one is begun.

    Raises:
        RunError: an answer is wrong; nothing is timed then
    """
    for competitor in competitors:
        if (wrong := competitor.check()) is not None:
            raise RunError(f"{competitor.name}: wrong answer, not timed: {wrong}")
    short = set()
    for competitor in competitors:
        _seconds(competitor)
        if _seconds(competitor) < SHORT_S:
            short.add(competitor.implementation)
    times: dict[Implementation, list[float]] = {
        competitor.implementation: [] for competitor in competitors
    }
    began = time.perf_counter()
    for i in range(rounds):
        if i >= 3 and time.perf_counter() - began > seconds:
            break
        turn = i % len(competitors)
        for competitor in [*competitors[turn:], *competitors[:turn]]:
            if competitor.implementation in short:
                _seconds(competitor)
            times[competitor.implementation].append(_seconds(competitor))
    return {competitor: Timing(tuple(each)) for competitor, each in times.items()}


def _seconds(competitor: Competitor) -> float:
    competitor.wait()
    if competitor.timed is not None:
        return competitor.timed()
    start = time.perf_counter()
    competitor.call()
    competitor.wait()
    return time.perf_counter() - start
