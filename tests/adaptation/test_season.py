"""The rhythm of days: a forecast rises ahead of a daily peak, by a bounded factor, and only the level follows it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from services.orchestrator.core.adaptation.adapt import Memory, Sense, handed_down, learn
from services.orchestrator.core.adaptation.fading import Faded
from services.orchestrator.core.adaptation.forecast import LEAD_S, MOST_SEASON, TREND_OVER, TREND_SHARE, forecast
from services.orchestrator.core.adaptation.history import (
    DAY_S,
    NEW_DAY_SHARE,
    NO_SEASON,
    RATES_S,
    SLOTS,
    History,
    Season,
    absorb,
    slot_of,
)
from services.orchestrator.core.adaptation.provision import Provision
from services.orchestrator.core.facts.blueprint import EMPTY
from services.orchestrator.core.facts.catalog import EMPTY_CATALOG
from services.orchestrator.core.facts.traffic import DeploymentTraffic, Window
from tests.orchestrator.worlds import wish

SLOT_S = DAY_S / SLOTS
# Coarse windows, so that two days are little work.
LENGTH_S = 30.0
CALM = 10.0
FROM_S, TO_S = 9 * 3600.0, 11 * 3600.0
# Just before the peak of the third day, and before its end.
BEFORE_S, LATE_S = (2 * DAY_S + at_s - LEAD_S / 2.0 for at_s in (FROM_S, TO_S))


@cache
def remembered(peak: float, to_s: float) -> History:
    """Even arrivals, more of them from nine to eleven; what was remembered an hour before is gone on from."""
    from_s = max(to_s - 3600.0, 0.0)
    history = remembered(peak, from_s) if from_s > 0.0 else History()
    starts = (from_s + n * LENGTH_S for n in range(round((to_s - from_s) / LENGTH_S)))
    return absorb(
        history,
        (Window(s, LENGTH_S, arrivals=arrivals(peak, s), prompt_tokens=100.0 * arrivals(peak, s)) for s in starts),
    )


def arrivals(peak: float, at_s: float) -> int:
    return round(LENGTH_S * (peak if FROM_S <= at_s % DAY_S < TO_S else CALM))


@pytest.mark.parametrize(("peak", "factor"), [(15.0, 1.5), (80.0, MOST_SEASON)])
def test_it_rises_ahead_of_the_peak_of_the_days_before_by_a_bounded_factor(peak: float, factor: float) -> None:
    ahead = forecast(remembered(peak, BEFORE_S), BEFORE_S)
    assert ahead.mean_per_s == pytest.approx(factor * CALM)
    assert ahead.upper_per_s >= factor * CALM
    early_s = BEFORE_S - LEAD_S
    assert forecast(remembered(peak, early_s), early_s).mean_per_s == pytest.approx(CALM), "not before it matters"
    assert forecast(remembered(peak, LATE_S), LATE_S).mean_per_s == pytest.approx(peak / factor, rel=0.01), (
        "and falls after it"
    )


def test_the_first_day_knows_of_no_peak() -> None:
    first_s = BEFORE_S - 2 * DAY_S
    assert forecast(remembered(15.0, first_s), first_s).mean_per_s == pytest.approx(CALM)


def test_a_steady_load_is_not_raised_at_any_time_of_day() -> None:
    history = remembered(CALM, 2 * DAY_S)
    for slot in range(SLOTS):
        found = forecast(history, 2 * DAY_S + (slot + 1) * SLOT_S - LEAD_S / 2.0)
        assert found.mean_per_s == pytest.approx(CALM)
        assert found.upper_per_s < 1.01 * CALM


def test_a_trend_is_added_to_the_season_not_multiplied_by_it() -> None:
    """A rise of today, just ahead of a slot that brought half as much again; without bursts the level is all."""
    now_s = SLOT_S - LEAD_S / 2.0
    rising = History(seen_to_s=now_s, rates=tuple(Faded(r, 1.0) for r in (40.0, 40.0, CALM, CALM)))
    assert RATES_S[TREND_OVER] == 600.0
    level = forecast(rising, now_s).mean_per_s
    trend = TREND_SHARE * (level - CALM)
    assert trend > 0.1 * CALM
    assert forecast(rising, now_s).upper_per_s == pytest.approx(level + trend)
    seasoned = forecast(replace(rising, season=Season((CALM, 1.5 * CALM) * (SLOTS // 2))), now_s)
    assert seasoned.mean_per_s == pytest.approx(1.5 * level)
    assert seasoned.upper_per_s == pytest.approx(1.5 * level + trend)


def test_days_are_mixed_and_a_slot_that_was_hardly_seen_says_nothing() -> None:
    season = NO_SEASON
    for day, rate in enumerate((10.0, 20.0)):
        season = season.after(day * DAY_S, round(rate * SLOT_S), SLOT_S).after(day * DAY_S + SLOT_S, 1, SLOT_S / 3.0)
    season = season.after(DAY_S + 2 * SLOT_S, 0, LENGTH_S)
    assert season.rate(5 * DAY_S) == pytest.approx(10.0 + NEW_DAY_SHARE * 10.0)
    assert season.rate(SLOT_S) is None
    assert season.rate(2 * SLOT_S) is None, "still open"
    assert (slot_of(0.0), slot_of(DAY_S - 1.0), slot_of(DAY_S)) == (0, SLOTS - 1, 0)


@pytest.mark.parametrize("shift_s", [0.0, 3 * SLOT_S, -50_000.0, 10 * DAY_S + SLOT_S, 60.0])
def test_the_rhythm_is_that_of_the_day_on_any_clock(shift_s: float) -> None:
    known = remembered(15.0, 2 * DAY_S).season
    moved = known.later(shift_s)
    off_s = shift_s - round(shift_s / SLOT_S) * SLOT_S
    for n in range(SLOTS):
        middle_s = (n + 0.5) * SLOT_S
        assert moved.rate(middle_s + shift_s - off_s) == known.later(0.0).rate(middle_s)


def test_a_new_leader_knows_the_days_and_nothing_of_the_load() -> None:
    sleeper = wish(rate=10.0, scale_to_zero=True)
    name, shift_s = sleeper.deployment_id, 6 * 3600.0
    provision = Provision(name, sleeper.generation, sleeper.demand, 0.0, words="as it was")
    left = Memory(histories=((name, remembered(15.0, BEFORE_S)),), provisions=(provision,))
    now_s = BEFORE_S + shift_s
    memory = handed_down(left, shift_s, now_s)
    for traffic in ((), (DeploymentTraffic(name),)):
        memory = learn(memory, (sleeper,), Sense(traffic), EMPTY, EMPTY_CATALOG, (), now_s)
        (after,) = memory.provisions
        assert (after.demand, after.asleep) == (sleeper.demand, False), "no traffic was seen yet, not even none"
    windows = tuple(Window(now_s - s, LENGTH_S, arrivals=300, prompt_tokens=3e4) for s in range(600, 0, -int(LENGTH_S)))
    memory = learn(memory, (sleeper,), Sense((DeploymentTraffic(name, windows),)), EMPTY, EMPTY_CATALOG, (), now_s)
    ((_, history),) = memory.histories
    assert forecast(history, now_s).mean_per_s == pytest.approx(15.0, rel=0.01), "ten a second now, the peak is ahead"
    assert handed_down(memory, 0.0, now_s).histories[0][1].age_s == 0.0
    assert handed_down(Memory(histories=((name, History()),)), 0.0, now_s).histories == ()
