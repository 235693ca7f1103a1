"""The queueing calculation against closed forms, limits and its own promises."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.orchestrator.core.facts.loads import figures_at, longest_prompt, sheaves_of
from services.orchestrator.core.facts.wish import Demand, LatencyLimit, Metric
from services.orchestrator.core.planning.capacity import (
    broken_limits,
    capacities_per_s,
    energies_per_token_mj,
    percentiles_ms,
    presence,
    share_within,
)
from services.orchestrator.core.planning.stations import MOST_UTILISATION, Stations, station_of, stations_of
from tests.orchestrator.worlds import profile, slo

DEMAND = Demand(1.0, 128, 32)


def percentile_ms(station: Stations, metric: Metric, percentile: float, rate: float) -> float:
    return float(percentiles_ms(station, [(metric, percentile)], numpy.array([rate]))[0][0])


def capacity_per_s(station: Stations, limits: tuple[LatencyLimit, ...]) -> float:
    return float(capacities_per_s(station, limits)[0])


def broken(station: Stations, limits: tuple[LatencyLimit, ...], rate: float) -> bool:
    return bool(broken_limits(station, limits, numpy.array([rate]))[0] >= 0)


def energy_per_token_mj(station: Stations, rate: float) -> float:
    return float(energies_per_token_mj(station, numpy.array([rate]))[0])


def test_without_load_the_figures_are_the_measured_ones() -> None:
    measured = profile("v", ttft_ms=100, tpot_ms=20)
    station = station_of(measured, DEMAND, 4)
    assert percentile_ms(station, Metric.TTFT, 50, 0.0) == pytest.approx(100.0, rel=1e-6)
    # The lognormal is at least as wide as p95 and p99 say, so the percentile is no smaller than the measured one.
    assert 120.0 <= percentile_ms(station, Metric.TTFT, 95, 0.0) <= 125.0
    assert energy_per_token_mj(station, 0.0) == pytest.approx(300.0)


def test_one_at_a_time_is_the_mm1_queue() -> None:
    station = station_of(profile("v", batches=(1,)), DEMAND, 1)
    idle, taken = presence(station.queues, 0.5 * station.full_per_s)[0]
    assert (idle, taken) == (pytest.approx(0.5), pytest.approx(0.5))
    # Who finds it taken waits as in M/M/1: P(wait > t) = ρ·exp(-(µ-λ)t), here at t = 2/µ.
    mean_ms = 1000.0 / station.full_per_s[0]
    share = share_within(station, Metric.TTFT, station.ttft.one(0, 0).p95_ms + 2.0 * mean_ms, 0.5 * station.full_per_s)
    own = station.ttft.one(0, 0).within(station.ttft.one(0, 0).p95_ms + 2.0 * mean_ms)
    assert share[0] == pytest.approx(0.5 * own + 0.5 * (1.0 - math.exp(-1.0)), abs=1e-6)


def test_waiting_matches_a_simulated_queue() -> None:
    """Exponential service at the state's rate, one at a time: the waits of a simulated queue keep the model's share."""
    station = station_of(profile("v", batches=(1,)), DEMAND, 1)
    mu, rate, rng = float(station.full_per_s[0]), 0.7 * float(station.full_per_s[0]), random.Random(1)
    clock = free_at = 0.0
    waits_s: list[float] = []
    for _ in range(60_000):
        clock += rng.expovariate(rate)
        waits_s.append(max(free_at - clock, 0.0))
        free_at = max(free_at, clock) + rng.expovariate(mu)
    own_p95_ms = station.ttft.one(0, 0).p95_ms
    limit_ms = own_p95_ms + 1500.0
    simulated = sum(wait <= 1.5 for wait in waits_s) / len(waits_s)
    assert share_within(station, Metric.TTFT, limit_ms, numpy.array([rate]))[0] == pytest.approx(simulated, abs=0.02)


@given(
    ttft=st.floats(1, 2000),
    tpot=st.floats(0.5, 300),
    batch=st.sampled_from([1, 2, 4]),
    limit=st.floats(1, 5000),
    prompt=st.integers(8, 512),
)
@settings(max_examples=60, deadline=None)
def test_capacity_is_where_the_limit_breaks(ttft: float, tpot: float, batch: int, limit: float, prompt: int) -> None:
    station = station_of(profile("v", ttft_ms=ttft, tpot_ms=tpot), Demand(1, prompt, 32), batch)
    limits = slo(ttft=limit, tpot=limit).latency
    capacity = capacity_per_s(station, limits)
    assert 0.0 <= capacity <= station.most_per_s[0]
    assert capacity == 0.0 or not broken(station, limits, capacity)
    if 0.0 < capacity < station.most_per_s[0]:
        assert broken(station, limits, min(capacity * 1.01, float(station.most_per_s[0])))
    if capacity == 0.0:
        assert broken(station, limits, 0.0)


@given(st.floats(0.0, 0.9), st.floats(0.0, 0.9), st.sampled_from(list(Metric)))
@settings(max_examples=60, deadline=None)
def test_latency_does_not_fall_with_load(a: float, b: float, metric: Metric) -> None:
    station = station_of(profile("v"), DEMAND, 4)
    low, high = sorted((a * float(station.full_per_s[0]), b * float(station.full_per_s[0])))
    assert percentile_ms(station, metric, 95, low) <= percentile_ms(station, metric, 95, high) * (1 + 1e-6)


def test_without_limits_it_is_a_share_of_the_most_throughput() -> None:
    station = station_of(profile("v"), DEMAND, 4)
    assert capacity_per_s(station, ()) == pytest.approx(MOST_UTILISATION * station.full_per_s[0])


def test_prompts_between_measured_ones_are_interpolated_and_far_ones_refused() -> None:
    measured = profile("v", ttft_ms=128)
    assert figures_at(measured, 80, 1).ttft.p50_ms == pytest.approx(80.0)
    assert figures_at(measured, 8, 1).ttft.p50_ms == pytest.approx(32.0), "never better than the shortest measured"
    assert figures_at(measured, 512, 1).ttft.p50_ms == pytest.approx(512.0)
    assert figures_at(measured, 128, 3).ttft.p50_ms == pytest.approx(256.0)
    with pytest.raises(ValueError, match="does not reach"):
        figures_at(measured, int(longest_prompt(measured, 1)) + 1, 1)


def test_profiles_measured_at_corners_are_never_read_optimistically() -> None:
    corners = profile("v", ttft_ms=128, tpot_ms=20, energy_mj=300)
    known = tuple(x for x in corners.loads if x.concurrency == 1 or (x.prompt_tokens, x.concurrency) == (128, 4))
    sparse = replace(corners, loads=known)
    at_two = figures_at(sparse, 128, 2)
    assert at_two.tpot.p50_ms == pytest.approx(20 * 1.6), "a step of two costs what the batch of four costs"
    assert at_two.energy_per_token_mj == pytest.approx(300.0), "150 mJ × 4 shared by two"
    # 256 tokens were measured alone only; with four together the figures go on from 128.
    assert figures_at(sparse, 256, 4).ttft.p50_ms == pytest.approx(2 * 128 * 2.5)
    assert longest_prompt(sparse, 4) == 256


def test_a_shorter_answer_carries_more_of_the_prefill() -> None:
    measured = profile("v", batches=(1,), energy_mj=300)
    known = replace(measured, loads=tuple(replace(load, energy_per_prefill_mj=3200.0) for load in measured.loads))
    # 300 mJ × 32 tokens = 9600 mJ, of which 3200 are prefill: 200 mJ a decoded token.
    assert energy_per_token_mj(station_of(known, Demand(0, 128, 8), 1), 0.0) == pytest.approx(200 + 3200 / 8)
    assert math.isclose(energy_per_token_mj(station_of(known, Demand(0, 128, 32), 1), 0.0), 300.0)


def test_many_side_by_side_are_what_each_is_alone() -> None:
    """Profiles measured at different loads, and several batch limits of one, in one calculation."""
    small, large = profile("a", batches=(1, 2), ttft_ms=90), profile("b", batches=(1, 2, 4, 16), tpot_ms=12)
    rows = [(small, 1), (large, 16), (small, 2), (large, 4)]
    together = stations_of([p for p, _ in rows], [b for _, b in rows], DEMAND, sheaves_of((small, large)))
    limits, rates = slo(ttft=900, tpot=60).latency, 0.6 * together.full_per_s
    for number, (one, batch) in enumerate(rows):
        alone = station_of(one, DEMAND, batch)
        assert capacities_per_s(together, limits)[number] == pytest.approx(capacity_per_s(alone, limits), rel=1e-9)
        assert energies_per_token_mj(together, rates)[number] == pytest.approx(
            energy_per_token_mj(alone, float(rates[number])), rel=1e-9
        )
        reached = percentiles_ms(together, [(Metric.TTFT, 95.0), (Metric.E2E, 99.0)], rates)
        assert reached[1][number] == pytest.approx(percentile_ms(alone, Metric.E2E, 99.0, float(rates[number])))
