"""The oracle: it is told what is to come, in time and whole, and makes something of it."""

from __future__ import annotations

import random
from bisect import bisect_left
from functools import cache

import pytest

from services.orchestrator.core.facts.policy import POLICIES
from services.simulator.baselines import (
    FORESEEN_EVERY_S,
    FORESIGHT_S,
    WANTED_ATTAINMENT,
    adaptive,
    foresight,
    oracle,
)
from services.simulator.outcome import Outcome
from services.simulator.run import Case
from services.simulator.trace import Trace
from tests.simulation.house import LIMITS, menu

# Rates are told with two digits, lengths in steps of 100 and 10 tokens.
ROUNDED = 0.95
WINDOW_S = 10.0


def made(seed: int, *parts: tuple[float, float]) -> Trace:
    """Independent requests: so many seconds at so many a second, part after part."""
    draw, begin_s, rows = random.Random(seed), 0.0, list[tuple[float, int, int]]()
    for length_s, rate in parts:
        at_s = begin_s + draw.expovariate(rate)
        while at_s < begin_s + length_s:
            rows.append((at_s, 100 + int(draw.expovariate(0.01)), 20 + int(draw.expovariate(0.02))))
            at_s += draw.expovariate(rate)
        begin_s += length_s
    return Trace("foreseen", *(tuple(column) for column in zip(*rows, strict=True)))  # type: ignore[arg-type]


def busiest_per_s(trace: Trace, from_s: float, to_s: float) -> float:
    """The most requests a second in any whole ten seconds of a stretch."""
    times = trace.arrival_s
    starts = [WINDOW_S * n for n in range(int(to_s / WINDOW_S)) if from_s <= WINDOW_S * n <= to_s - WINDOW_S]
    counts = (bisect_left(times, s + WINDOW_S) - bisect_left(times, s) for s in starts)
    return max(counts, default=0) / WINDOW_S


@pytest.mark.parametrize("seed", range(5))
def test_it_is_told_no_less_than_the_next_five_minutes_hold(seed: int) -> None:
    draw = random.Random(100 + seed)
    trace = made(seed, *((draw.uniform(20.0, 200.0), draw.uniform(0.2, 12.0)) for _ in range(12)))
    tell = foresight(trace, 1.0)
    for _ in range(200):
        now_s = draw.uniform(-60.0, trace.length_s)
        ((name, told),) = tell(now_s)
        wanted = busiest_per_s(trace, max(now_s, 0.0), now_s + FORESIGHT_S)
        assert name == trace.name
        assert told.requests_per_s >= ROUNDED * wanted, (seed, now_s)
        assert told.requests_per_s >= ROUNDED * told.mean_requests_per_s


def test_it_is_told_of_a_burst_before_it_comes_and_of_nothing_later() -> None:
    trace = made(1, (1200.0, 1.0), (60.0, 20.0), (1200.0, 1.0))
    tell = foresight(trace, 1.0)
    rates = {at_s: tell(float(at_s))[0][1].requests_per_s for at_s in range(0, 2400, 10)}
    known = [at_s for at_s, rate in rates.items() if rate > 10.0]
    assert known[0] <= 1200.0 - FORESIGHT_S, "five minutes ahead at least"
    assert known[0] >= 1200.0 - FORESIGHT_S - FORESEEN_EVERY_S, "and a look more at most"
    assert known[-1] < 1260.0 + FORESEEN_EVERY_S, "it is over when it is over"


def test_a_longer_prompt_is_foreseen_as_the_work_that_it_is() -> None:
    short = made(2, (600.0, 2.0))
    long = Trace("foreseen", short.arrival_s, tuple(30 * p for p in short.prompt_tokens), short.output_tokens)
    ((_, few),), ((_, many),) = (foresight(t, 1.0)(100.0) for t in (short, long))
    assert many.prompt_tokens == pytest.approx(30 * few.prompt_tokens, rel=0.5)
    assert many.output_tokens == few.output_tokens


@cache
def rare_burst() -> Case:
    """A busy minute that is stated, twenty minutes of calm, and the same minute again."""
    trace = made(3, (60.0, 20.0), (1200.0, 1.0), (60.0, 20.0), (120.0, 1.0))
    cluster, points = menu()
    return Case(cluster, points, trace, LIMITS, from_s=120.0, look_s=2.0)


def test_where_a_burst_is_rare_knowing_it_needs_no_more_energy_and_misses_no_more() -> None:
    case, tried = rare_burst(), list[Outcome]()
    known = oracle(case, lambda _, outcome: tried.append(outcome))
    learnt = adaptive(case, POLICIES["energy"], lambda *_: None)
    assert known.attainment >= WANTED_ATTAINMENT
    assert known.attainment >= learnt.attainment
    assert known.energy.total_j <= learnt.energy.total_j
    assert known.energy.total_j == min(o.energy.total_j for o in tried if o.attainment >= WANTED_ATTAINMENT)
    assert not known.findings
