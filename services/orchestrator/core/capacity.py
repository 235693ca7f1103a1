"""How many requests a second one replica takes before a latency percentile breaks its limit. Modelled, not measured.

The model. A replica with continuous batching is one station whose speed depends on how many requests it holds: a
flow-equivalent server (Chandy, Herzog, Woo, "Parametric analysis of queuing networks", IBM J. R&D 19(1), 1975) under
Poisson arrivals. With n requests at work the profile gives the mean time of a request T(n) = TTFT(n) + (O-1)·TPOT(n),
so the station completes µ(n) = n / T(n) requests a second up to the batch limit B, and µ(B) with a queue. The number
present is a birth-death chain with π(n) ∝ Π λ/µ(k). By PASTA an arrival finds n present with probability π(n):

- n < B: it starts at once and meets the latencies measured at n+1 sequences, as a lognormal through p50, p95, p99;
- n ≥ B: it first waits for n-B+1 departures (Erlang with rate µ(B)), then meets those at B; its own TTFT is put at
  its 95th percentile there, which errs on the safe side.

Capacity is the greatest λ at which every limit holds at its percentile, found by bisection, and never more than
`MOST_UTILISATION` of µ(B). At λ → 0 all figures are the measured ones. The profiler starts the sequences of a load
together, so measured TTFT already has its share of waiting for others' prefills: again the safe side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.loads import Figures, Spread, figures_at, spread_of
from services.orchestrator.core.profile import Profile
from services.orchestrator.core.wish import Demand, LatencyLimit, Metric

# Queues grow as 1/(1-ρ); above this share the model's errors decide, not the load.
MOST_UTILISATION: Final = 0.9
# States of the chain beyond the batch limit; at MOST_UTILISATION the tail beyond weighs 0.9^128 ≈ 1e-6.
QUEUE_STATES: Final = 128
# States rarer than this change no percentile that anybody limits.
_NEGLIGIBLE: Final = 1e-9
# Halvings of the interval: 2^-30 of it is below any figure's precision.
_HALVINGS: Final = 30
# No latency is looked for above a day.
_MOST_MS: Final = 86_400_000.0


@dataclass(frozen=True, slots=True)
class Station:
    """One replica as a queue; entry n-1 of each tuple speaks of n sequences at work."""

    ttft: tuple[Spread, ...]
    tpot: tuple[Spread, ...]
    e2e: tuple[Spread, ...]
    rates_per_s: tuple[float, ...]
    figures: tuple[Figures, ...]
    output_tokens: int

    @property
    def most_per_s(self) -> float:
        """Requests a second it is ever loaded with."""
        return MOST_UTILISATION * self.rates_per_s[-1]


def station_of(profile: Profile, demand: Demand, batch_limit: int) -> Station:
    """The queue that a replica at this profile's operating point makes for requests of the demand's shape.

    Raises:
        ValueError: the profile does not reach the demand's prompt length.
    """
    figures = tuple(figures_at(profile, demand.prompt_tokens, n) for n in range(1, batch_limit + 1))
    later = max(demand.output_tokens - 1, 0)
    ttft = tuple(spread_of(f.ttft) for f in figures)
    tpot = tuple(spread_of(f.tpot) for f in figures)
    means_s = [(f.ttft.mean_ms + later * f.tpot.mean_ms) / 1000.0 for f in figures]
    return Station(
        ttft=ttft,
        tpot=tpot,
        e2e=tuple(_sum(a, b, later) for a, b in zip(ttft, tpot, strict=True)),
        rates_per_s=tuple(n / max(mean, 1e-9) for n, mean in enumerate(means_s, start=1)),
        figures=figures,
        output_tokens=max(demand.output_tokens, 1),
    )


def presence(station: Station, rate_per_s: float) -> tuple[float, ...]:
    """π(0), π(1), …: probabilities that so many requests are present."""
    batch, weights = len(station.rates_per_s), [1.0]
    for n in range(1, batch + QUEUE_STATES + 1):
        weights.append(weights[-1] * rate_per_s / station.rates_per_s[min(n, batch) - 1])
        if weights[-1] < _NEGLIGIBLE * max(weights):
            break
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def share_within(station: Station, metric: Metric, limit_ms: float, rate_per_s: float) -> float:
    """Share of requests whose latency is at most `limit_ms`."""
    return _share_within(station, metric, limit_ms, presence(station, rate_per_s))


def percentile_ms(station: Station, metric: Metric, percentile: float, rate_per_s: float) -> float:
    """The latency that `percentile` per cent of requests stay within, rounded up by at most 2^-30."""
    seen, wanted = presence(station, rate_per_s), percentile / 100.0
    low, high = 0.0, 1.0
    while high < _MOST_MS and _share_within(station, metric, high, seen) < wanted:
        low, high = high, high * 4.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if _share_within(station, metric, middle, seen) < wanted:
            low = middle
        else:
            high = middle
    return high


def broken_limit(station: Station, limits: tuple[LatencyLimit, ...], rate_per_s: float) -> LatencyLimit | None:
    """The first limit that does not hold at this rate."""
    seen = presence(station, rate_per_s)
    for limit in limits:
        if _share_within(station, limit.metric, limit.limit_ms, seen) < limit.percentile / 100.0:
            return limit
    return None


def capacity_per_s(station: Station, limits: tuple[LatencyLimit, ...]) -> float:
    """Requests a second that one replica takes within all limits; 0 when they break with no load at all."""
    if broken_limit(station, limits, 0.0):
        return 0.0
    low, high = 0.0, station.most_per_s
    if not broken_limit(station, limits, high):
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if broken_limit(station, limits, middle):
            high = middle
        else:
            low = middle
    return low


def energy_per_token_mj(station: Station, rate_per_s: float) -> float:
    """Mean energy of a generated token at this rate, prefill's share included, idle's share excluded.

    The profile's energy per token holds the prefill of its own output length; a request of another output length
    pays the same prefill over more or fewer tokens.
    """
    seen = presence(station, rate_per_s)
    busy = 1.0 - seen[0]
    total, batch = 0.0, len(station.rates_per_s)
    weights = seen[1:] if busy > _NEGLIGIBLE else (1.0,)
    for n, weight in enumerate(weights, start=1):
        total += weight * _token_mj(station.figures[min(n, batch) - 1], station.output_tokens)
    return total / math.fsum(weights)


def _token_mj(figures: Figures, output_tokens: int) -> float:
    prefill = figures.energy_per_prefill_mj
    if prefill <= 0.0 or figures.output_tokens <= 0.0:
        return figures.energy_per_token_mj
    decode = max(figures.energy_per_token_mj - prefill / figures.output_tokens, 0.0)
    return decode + prefill / output_tokens


def _share_within(station: Station, metric: Metric, limit_ms: float, seen: tuple[float, ...]) -> float:
    spreads = {Metric.TTFT: station.ttft, Metric.TPOT: station.tpot, Metric.E2E: station.e2e}[metric]
    batch = len(spreads)
    share = math.fsum(p * spreads[n].within(limit_ms) for n, p in enumerate(seen[:batch]))
    if metric is Metric.TPOT:
        return share + math.fsum(seen[batch:]) * spreads[-1].within(limit_ms)
    room_s = (limit_ms - spreads[-1].p95_ms) / 1000.0
    if room_s <= 0.0:
        return share
    # P(Erlang(k) ≤ t) = 1 - Σ_{i<k} Poisson(i; µt), term by term.
    mean = station.rates_per_s[-1] * room_s
    term = math.exp(-mean)
    below = term
    for k, p in enumerate(seen[batch:], start=1):
        share += p * max(1.0 - below, 0.0)
        term *= mean / k
        below += term
    return share


def _sum(ttft: Spread, tpot: Spread, later: int) -> Spread:
    """First token plus the later ones; percentiles add up as if both were slow together, the safe side."""
    median = ttft.median_ms + later * tpot.median_ms
    p95 = ttft.p95_ms + later * tpot.p95_ms
    return Spread(median, math.log(p95 / median) / 1.6449 if p95 > median > 0.0 else 0.0)
