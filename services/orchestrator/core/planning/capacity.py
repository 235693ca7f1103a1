"""How many requests a second one replica takes before a latency percentile breaks its limit. Modelled, not measured.

The model. A replica with continuous batching is one station whose speed depends on how many requests it holds: a
flow-equivalent server (Chandy, Herzog, Woo, "Parametric analysis of queuing networks", IBM J. R&D 19(1), 1975) under
Poisson arrivals. With n requests at work the profile gives the mean time of a request T(n) = TTFT(n) + (O-1)·TPOT(n),
so the station completes µ(n) = n / T(n) requests a second up to the batch limit B, and µ(B) with a queue. The number
present is a birth-death chain with π(n) ∝ Π λ/µ(k). By PASTA an arrival finds n present with probability π(n):

- n < B: it starts at once and meets the latencies measured at n+1 sequences, as a lognormal through p50, p95, p99;
- n ≥ B: it first waits for n-B+1 departures (Erlang with rate µ(B)), then meets those at B; its own TTFT is put at
  its 95th percentile there, which errs on the safe side.

Capacity is the greatest λ at which every limit holds at its percentile, found by bisection (what an arrival meets does
not depend on λ and is computed once), and never more than `MOST_UTILISATION` of µ(B). At λ → 0 all figures are the
measured ones. The profiler starts the sequences of a load together, so measured TTFT already has its share of waiting
for others' prefills: again the safe side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy
from numpy.typing import NDArray

from services.orchestrator.core.facts.loads import COLUMNS, Spread, Table, table_at
from services.orchestrator.core.facts.profile import Profile
from services.orchestrator.core.facts.wish import Demand, LatencyLimit, Metric
from services.orchestrator.core.planning.normal import normal_cdf

# Queues grow as 1/(1-ρ); above this share the model's errors decide, not the load.
MOST_UTILISATION: Final = 0.9
# States of the chain beyond the batch limit; at MOST_UTILISATION the tail beyond weighs 0.9^128 ≈ 1e-6.
QUEUE_STATES: Final = 128
# A capacity is looked for to this share of it, in at most so many steps; each leaves out at least this share.
_PRECISION: Final = 1e-4
_STEPS: Final = 40
_CAUTION: Final = 0.02
# Halvings of a percentile's interval, whose ends are a factor of 2 apart: 2^(2^-10) is seven in ten thousand.
_PERCENTILE_HALVINGS: Final = 10
# No latency is looked for above a day.
_MOST_MS: Final = 86_400_000.0
# Stations and capacities kept: a plan asks for the same ones as the plan before it. A station is some 20 kB.
_KEPT_STATIONS: Final = 16_384
_KEPT_CAPACITIES: Final = 65_536
_Z95: Final = 1.6449
_Z99: Final = 2.3263
# More sequences together than any replica is built for.
_MOST_BATCH: Final = 4_096
_NUMBERS: Final = numpy.arange(_MOST_BATCH + QUEUE_STATES + 1)
_LGAMMA: Final = numpy.array([math.lgamma(i + 1.0) for i in range(QUEUE_STATES)])

Vector = NDArray[numpy.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Spreads:
    """Lognormal latencies, one for each number of sequences at work."""

    medians_ms: Vector
    sigmas: Vector

    def __getitem__(self, index: int) -> Spread:
        return Spread(float(self.medians_ms[index]), float(self.sigmas[index]))

    def __len__(self) -> int:
        return len(self.medians_ms)

    def within(self, limit_ms: float) -> Vector:
        """Probabilities of at most `limit_ms`."""
        if limit_ms <= 0.0:
            return numpy.zeros(len(self))
        certain = (self.sigmas == 0.0) | (self.medians_ms <= 0.0)
        medians, sigmas = numpy.where(certain, 1.0, self.medians_ms), numpy.where(certain, 1.0, self.sigmas)
        shares = normal_cdf((math.log(limit_ms) - numpy.log(medians)) / sigmas)
        return numpy.where(certain, self.medians_ms <= limit_ms, shares)

    def first(self, count: int) -> Spreads:
        """Those of up to `count` sequences."""
        return Spreads(self.medians_ms[:count], self.sigmas[:count])


@dataclass(frozen=True, slots=True, eq=False)
class Station:
    """One replica as a queue; entry n-1 of each vector speaks of n sequences at work.

    Attributes:
        log_rates: entry n is Σ log µ(k) over k = 1 … n, the queue's states included.
    """

    ttft: Spreads
    tpot: Spreads
    e2e: Spreads
    rates_per_s: Vector
    log_rates: Vector
    energies_mj: Vector
    output_tokens: int

    @property
    def most_per_s(self) -> float:
        """Requests a second it is ever loaded with."""
        return MOST_UTILISATION * float(self.rates_per_s[-1])

    def spreads(self, metric: Metric) -> Spreads:
        """Latencies of a metric."""
        return {Metric.TTFT: self.ttft, Metric.TPOT: self.tpot, Metric.E2E: self.e2e}[metric]


def station_of(profile: Profile, demand: Demand, batch_limit: int) -> Station:
    """The queue that a replica at this profile's operating point makes for requests of the demand's shape.

    Raises:
        ValueError: the profile does not reach the demand's prompt length.
    """
    return _station(profile, demand.prompt_tokens, demand.output_tokens, batch_limit)


def presence(station: Station, rate_per_s: float) -> Vector:
    """π(0), π(1), …: probabilities that so many requests are present."""
    if rate_per_s <= 0.0:
        return numpy.ones(1)
    logs = math.log(rate_per_s) * _NUMBERS[: len(station.log_rates)] - station.log_rates
    weights = numpy.exp(logs - logs.max())
    return numpy.asarray(weights / weights.sum())


def share_within(station: Station, metric: Metric, limit_ms: float, rate_per_s: float) -> float:
    """Share of requests whose latency is at most `limit_ms`."""
    return _weighted(presence(station, rate_per_s), _shares(station, metric, limit_ms))


def percentile_ms(station: Station, metric: Metric, percentile: float, rate_per_s: float) -> float:
    """The latency that `percentile` per cent of requests stay within, rounded up by at most seven in ten thousand."""
    if rate_per_s <= 0.0:
        first = station.spreads(metric)[0]
        return first.median_ms * math.exp(first.sigma * NormalDist().inv_cdf(percentile / 100.0))
    seen, wanted = presence(station, rate_per_s), percentile / 100.0
    first = station.spreads(metric)[0]
    high = max(first.median_ms * math.exp(first.sigma * NormalDist().inv_cdf(wanted)), 1e-3)
    while high < _MOST_MS and _weighted(seen, _shares(station, metric, high)) < wanted:
        high *= 2.0
    low = high / 2.0
    while low > 1e-6 and _weighted(seen, _shares(station, metric, low)) >= wanted:
        low, high = low / 2.0, low
    for _ in range(_PERCENTILE_HALVINGS):
        middle = math.sqrt(low * high)
        if _weighted(seen, _shares(station, metric, middle)) < wanted:
            low = middle
        else:
            high = middle
    return high


def broken_limit(station: Station, limits: tuple[LatencyLimit, ...], rate_per_s: float) -> LatencyLimit | None:
    """The first limit that does not hold at this rate."""
    if rate_per_s <= 0.0:
        alone = ((limit, station.spreads(limit.metric)[0]) for limit in limits)
        return next((lim for lim, spread in alone if spread.within(lim.limit_ms) < lim.percentile / 100.0), None)
    return _broken(station, [(limit, _shares(station, limit.metric, limit.limit_ms)) for limit in limits], rate_per_s)


def capacity_per_s(station: Station, limits: tuple[LatencyLimit, ...]) -> float:
    """Requests a second that one replica takes within all limits; 0 when they break with no load at all."""
    if broken_limit(station, limits, 0.0):
        return 0.0
    shares = [(limit, _shares(station, limit.metric, limit.limit_ms)) for limit in limits]
    low, high = 0.0, station.most_per_s
    above, below = _margin(station, shares, low), _margin(station, shares, high)
    if below >= 0.0:
        return high
    # Regula falsi with halving (Illinois): a handful of steps where bisection takes twenty.
    for _ in range(_STEPS):
        if high - low <= _PRECISION * high:
            break
        middle = low + (high - low) * min(max(above / (above - below), _CAUTION), 1.0 - _CAUTION)
        margin = _margin(station, shares, middle)
        if margin < 0.0:
            high, below, above = middle, margin, above / 2.0
        else:
            low, above, below = middle, margin, below / 2.0
    return low


def capacity_at(profile: Profile, demand: Demand, batch_limit: int, limits: tuple[LatencyLimit, ...]) -> float:
    """`capacity_per_s` of a profile; remembered, for it does not depend on the rate.

    Raises:
        ValueError: the profile does not reach the demand's prompt length.
    """
    return _capacity(profile, demand.prompt_tokens, demand.output_tokens, batch_limit, limits)


def energy_per_token_mj(station: Station, rate_per_s: float) -> float:
    """Mean energy of a generated token at this rate, prefill's share included, idle's share excluded.

    The profile's energy per token holds the prefill of its own output length; a request of another output length
    pays the same prefill over more or fewer tokens.
    """
    if rate_per_s <= 0.0:
        return float(station.energies_mj[0])
    weights = presence(station, rate_per_s)[1:]
    batch = len(station.rates_per_s)
    total = float(weights[:batch] @ station.energies_mj) + float(weights[batch:].sum() * station.energies_mj[-1])
    return total / float(weights.sum())


@lru_cache(maxsize=_KEPT_CAPACITIES)
def _capacity(
    profile: Profile, prompt_tokens: int, output_tokens: int, batch_limit: int, limits: tuple[LatencyLimit, ...]
) -> float:
    return capacity_per_s(_station(profile, prompt_tokens, output_tokens, batch_limit), limits)


@lru_cache(maxsize=_KEPT_STATIONS)
def _station(profile: Profile, prompt_tokens: int, output_tokens: int, batch_limit: int) -> Station:
    table, later = table_at(profile, prompt_tokens, batch_limit), max(output_tokens - 1, 0)
    ttft, tpot = _spreads(table, COLUMNS.TTFT_P50), _spreads(table, COLUMNS.TPOT_P50)
    means_s = (table[:, COLUMNS.TTFT_MEAN] + later * table[:, COLUMNS.TPOT_MEAN]) / 1000.0
    rates = numpy.arange(1, batch_limit + 1) / numpy.maximum(means_s, 1e-9)
    all_rates = numpy.concatenate([rates, numpy.full(QUEUE_STATES, rates[-1])])
    return Station(
        ttft=ttft,
        tpot=tpot,
        e2e=_sum(ttft, tpot, later),
        rates_per_s=rates,
        log_rates=numpy.concatenate([[0.0], numpy.cumsum(numpy.log(all_rates))]),
        energies_mj=_energies_mj(table, max(output_tokens, 1)),
        output_tokens=max(output_tokens, 1),
    )


def _spreads(table: Table, median: COLUMNS) -> Spreads:
    """Lognormals through the medians that are at least as wide as the 95th and 99th percentiles say."""
    p50, p95, p99, mean = (table[:, median + offset] for offset in range(4))
    known = p50 > 0.0
    safe = numpy.where(known, p50, 1.0)
    sigma95 = numpy.log(numpy.maximum(p95 / safe, 1.0)) / _Z95
    sigma99 = numpy.log(numpy.maximum(p99 / safe, 1.0)) / _Z99
    sigmas = numpy.where(known, numpy.maximum(sigma95, sigma99), 0.0)
    return Spreads(numpy.where(known, p50, numpy.maximum(mean, 0.0)), sigmas)


def _sum(ttft: Spreads, tpot: Spreads, later: int) -> Spreads:
    """First token plus the later ones; percentiles add up as if both were slow together, the safe side."""
    medians = ttft.medians_ms + later * tpot.medians_ms
    p95 = ttft.medians_ms * numpy.exp(_Z95 * ttft.sigmas) + later * tpot.medians_ms * numpy.exp(_Z95 * tpot.sigmas)
    wide = (p95 > medians) & (medians > 0.0)
    return Spreads(medians, numpy.log(numpy.where(wide, p95 / numpy.where(wide, medians, 1.0), 1.0)) / _Z95)


def _energies_mj(table: Table, output_tokens: int) -> Vector:
    per_token, prefill = table[:, COLUMNS.ENERGY_PER_TOKEN], table[:, COLUMNS.ENERGY_PER_PREFILL]
    measured = table[:, COLUMNS.OUTPUT_TOKENS]
    known = (prefill > 0.0) & (measured > 0.0)
    decode = numpy.maximum(per_token - prefill / numpy.where(known, measured, 1.0), 0.0)
    return numpy.where(known, decode + prefill / output_tokens, per_token)


def _broken(station: Station, shares: list[tuple[LatencyLimit, Vector]], rate_per_s: float) -> LatencyLimit | None:
    seen = presence(station, rate_per_s)
    for limit, within in shares:
        if _weighted(seen, within) < limit.percentile / 100.0:
            return limit
    return None


def _margin(station: Station, shares: list[tuple[LatencyLimit, Vector]], rate_per_s: float) -> float:
    """How far the tightest limit is kept, as a share of requests; negative when it is broken."""
    seen = presence(station, rate_per_s)
    return min((_weighted(seen, within) - limit.percentile / 100.0 for limit, within in shares), default=1.0)


def _weighted(seen: Vector, shares: Vector) -> float:
    return float(seen @ shares[: len(seen)])


def _shares(station: Station, metric: Metric, limit_ms: float) -> Vector:
    """Probability that an arrival keeps a limit, by how many it finds: B that start at once, then those that queue."""
    spreads = station.spreads(metric)
    at_once = spreads.within(limit_ms)
    if metric is Metric.TPOT:
        queued = numpy.full(QUEUE_STATES + 1, at_once[-1])
    else:
        queued = _waits(station, (limit_ms - spreads[len(spreads) - 1].p95_ms) / 1000.0)
    return numpy.concatenate([at_once, queued])


def _waits(station: Station, room_s: float) -> Vector:
    """P(Erlang(k) ≤ t) = 1 - Σ_{i<k} Poisson(i; µt) for k = 1, 2, …"""
    if room_s <= 0.0:
        return numpy.zeros(QUEUE_STATES + 1)
    mean = float(station.rates_per_s[-1]) * room_s
    below = numpy.cumsum(numpy.exp(numpy.arange(QUEUE_STATES) * math.log(mean) - mean - _LGAMMA))
    return numpy.concatenate([numpy.maximum(1.0 - below, 0.0), [0.0]])
