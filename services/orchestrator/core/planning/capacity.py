"""How many requests a second one replica takes before a latency percentile breaks its limit. Modelled, not measured.

The model. A replica with continuous batching is one station whose speed depends on how many requests it holds: a
flow-equivalent server (Chandy, Herzog, Woo, "Parametric analysis of queuing networks", IBM J. R&D 19(1), 1975) under
Poisson arrivals. With n requests at work it completes µ(n) a second (`stations`) up to the batch limit B, and µ(B)
with a queue. The number present is a birth-death chain with π(n) ∝ Π λ/µ(k). By PASTA an arrival finds n present with
probability π(n):

- n < B: it starts at once and meets the latencies measured at n+1 sequences, as a lognormal through p50, p95, p99;
- n ≥ B: it first waits for n-B+1 departures at µ(B), then meets those at B; its own TTFT is put at its 95th
  percentile there, which errs on the safe side. Beyond B the chain is geometric with ratio λ/µ(B), so the waits of
  all who queue are together exponential with rate µ(B)-λ, as in M/M/1 (Kleinrock, "Queueing Systems" I, 3.2, 5.12).

Capacity is the greatest λ at which every limit holds at its percentile, and never more than `MOST_UTILISATION` of
µ(B). At λ → 0 all figures are the measured ones. The profiler starts the sequences of a load together, so measured
TTFT already has its share of waiting for others' prefills: again the safe side.

All functions speak of many stations at once, a row each, and of one rate for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy

from services.orchestrator.core.facts.wish import LatencyLimit, Metric
from services.orchestrator.core.planning.stations import (
    Bools,
    Queues,
    Spreads,
    Stations,
    Vector,
    Whole,
    put_together,
)

# A capacity is looked for to this share of it, in at most so many steps; each leaves out at least this share.
_PRECISION: Final = 3e-4
_STEPS: Final = 40
_CAUTION: Final = 0.02
# Fewer misses than this share are none.
_FEWEST: Final = 1e-12
# Stands for a limit that is not asked for.
_NO_LIMIT: Final = LatencyLimit(Metric.TTFT, 50.0, float("inf"))
_METRICS: Final = (Metric.TTFT, Metric.TPOT, Metric.E2E)
# Halvings of a percentile's interval, whose ends are a factor of 2 apart: 2^(2^-10) is seven in ten thousand.
_PERCENTILE_HALVINGS: Final = 10
# No latency is looked for above a day, nor below a nanosecond.
_MOST_MS: Final = 86_400_000.0
_LEAST_MS: Final = 1e-6
# So many figures of stations fit into a core's cache: more side by side is no quicker.
_CELLS: Final = 65_536
# A queue at this utilisation is as long as matters; beyond it there is no steady state.
_FULL: Final = 1.0 - 1e-9


def presence(queues: Queues, rates_per_s: Vector) -> Vector:
    """π(0), π(1), … π(B-1) of each station, and in the last column that all places are taken."""
    quiet = rates_per_s <= 0.0
    log_rates = numpy.log(numpy.where(quiet, 1.0, rates_per_s))[:, None]
    numbers, batches = numpy.arange(queues.log_rates.shape[1] - 1), queues.batches
    logs = numpy.where(numbers < batches[:, None], numbers * log_rates - queues.log_rates[:, :-1], -numpy.inf)
    used = numpy.minimum(rates_per_s / queues.full_per_s, _FULL)
    full = batches * log_rates[:, 0] - queues.log_rates[numpy.arange(len(batches)), batches]
    logs = numpy.concatenate([logs, (full - numpy.log1p(-used))[:, None]], axis=1)
    weights = numpy.exp(logs - logs.max(axis=1, keepdims=True))
    weights[quiet], weights[quiet, 0] = 0.0, 1.0
    return numpy.asarray(weights / weights.sum(axis=1, keepdims=True))


def share_within(stations: Stations, metric: Metric, limit_ms: float, rates_per_s: Vector) -> Vector:
    """Share of requests whose latency is at most `limit_ms`."""
    limits = numpy.full(len(stations), limit_ms)
    return _kept(stations, metric, limits).share(presence(stations.queues, rates_per_s), rates_per_s)


def percentiles_ms(
    stations: Stations, wanted: Sequence[tuple[Metric, float | Vector]], rates_per_s: Vector
) -> tuple[Vector, ...]:
    """For each metric the latencies that its per cent of requests stay within, by 0.07 % too long at most.

    Args:
        wanted: metrics with a percentile, or with one for each station.
    """
    count, rows = len(stations), numpy.tile(numpy.arange(len(stations)), len(wanted))
    percents = [numpy.broadcast_to(numpy.asarray(percent, dtype=float), count) for _, percent in wanted]
    alone = [alone_ms(stations, metric, one) for (metric, _), one in zip(wanted, percents, strict=True)]
    if not (rates_per_s > 0.0).any():
        return tuple(alone)
    seen, rates = presence(stations.queues, rates_per_s)[rows], rates_per_s[rows]
    spreads = put_together([stations.spreads(metric) for metric, _ in wanted])
    waits = numpy.repeat([metric is not Metric.TPOT for metric, _ in wanted], count)
    wide, least = stations.take(rows), numpy.concatenate(alone)

    def share(limits_ms: Vector) -> Vector:
        return _kept_of(wide, spreads, waits, limits_ms).share(seen, rates)

    reached = _quantiles(share, numpy.concatenate(percents) / 100.0, numpy.maximum(least, 1e-3))
    return tuple(numpy.split(numpy.where(rates > 0.0, reached, least), len(wanted)))


def _quantiles(share: Callable[[Vector], Vector], wanted: Vector, high: Vector) -> Vector:
    """Where growing shares reach what is wanted, from above: brackets a factor of 2 apart, then halvings."""
    while (below := (high < _MOST_MS) & (share(high) < wanted)).any():
        high = numpy.where(below, high * 2.0, high)
    low = high / 2.0
    while (above := (low > _LEAST_MS) & (share(low) >= wanted)).any():
        low, high = numpy.where(above, low / 2.0, low), numpy.where(above, low, high)
    for _ in range(_PERCENTILE_HALVINGS):
        middle = numpy.sqrt(low * high)
        below = share(middle) < wanted
        low, high = numpy.where(below, middle, low), numpy.where(below, high, middle)
    return high


def alone_ms(stations: Stations, metric: Metric, percent: Vector) -> Vector:
    """Latencies that so many per cent of requests stay within when no others are there."""
    return _alone_ms(stations.up_to(1).spreads(metric), percent / 100.0)


def _alone_ms(first: Spreads, wanted: Vector) -> Vector:
    distinct, rows = numpy.unique(wanted, return_inverse=True)
    normal = numpy.array([NormalDist().inv_cdf(share) for share in distinct.tolist()])
    found: Vector = first.medians_ms[:, 0] * numpy.exp(first.sigmas[:, 0] * normal[rows])
    return found


Limits = tuple[LatencyLimit, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Limits of the same number, one for each station; one that is not asked for is never broken.

    Attributes:
        metrics: numbers in `_METRICS`.
        wanted: share of requests that must keep it.
    """

    metrics: Whole
    limits_ms: Vector
    wanted: Vector

    def of(self, rows: Whole) -> Column:
        """For some of the stations."""
        return Column(self.metrics[rows], self.limits_ms[rows], self.wanted[rows])

    def kept(self, stations: Stations) -> _Kept:
        """Who keeps it."""
        waits = self.metrics != _METRICS.index(Metric.TPOT)
        return _kept_of(stations, _spreads_of(stations, self.metrics), waits, self.limits_ms)


def columns_of(asked: Sequence[tuple[int, Limits]]) -> list[Column]:
    """The first limit of each, the second of each, and so on.

    Args:
        asked: numbers of stations with limits of their own.
    """
    counts, found = [count for count, _ in asked], []
    for number in range(max((len(limits) for _, limits in asked), default=0)):
        mine = [limits[number] if number < len(limits) else _NO_LIMIT for _, limits in asked]
        rows = ((_METRICS.index(one.metric), one.limit_ms, one.percentile / 100.0) for one in mine)
        found.append(Column(*(numpy.repeat(column, counts) for column in zip(*rows, strict=True))))
    return found


def broken_at_rest(stations: Stations, columns: Sequence[Column]) -> Whole:
    """For each station the number of the first limit that a single request breaks; -1 when there is none."""
    broken, first = numpy.full(len(stations), -1), stations.up_to(1)
    for number, column in reversed(list(enumerate(columns))):
        share = _spreads_of(first, column.metrics).within(column.limits_ms)[:, 0]
        broken[share < column.wanted] = number
    return broken


def reached_at_rest_ms(stations: Stations, columns: Sequence[Column], numbers: Whole) -> Vector:
    """What a single request reaches of the limit of that number."""
    rows = numpy.arange(len(stations))
    metrics, wanted = (
        numpy.stack(rows_of)[numbers, rows] for rows_of in zip(*((c.metrics, c.wanted) for c in columns), strict=True)
    )
    return _alone_ms(_spreads_of(stations.up_to(1), metrics), wanted)


def broken_limits(stations: Stations, limits: Limits, rates_per_s: Vector) -> Whole:
    """For each station the number of the first limit that does not hold at its rate; -1 when all do."""
    columns = columns_of([(len(stations), limits)])
    if not (rates_per_s > 0.0).any():
        return broken_at_rest(stations, columns)
    broken, seen = numpy.full(len(stations), -1), presence(stations.queues, rates_per_s)
    for number, column in reversed(list(enumerate(columns))):
        broken[column.kept(stations).share(seen, rates_per_s) < column.wanted] = number
    return broken


def capacities_per_s(stations: Stations, limits: Limits) -> Vector:
    """Requests a second that each takes within all limits; 0 where they break with no load at all."""
    return capacities_within(stations, columns_of([(len(stations), limits)]))


def capacities_within(stations: Stations, columns: Sequence[Column]) -> Vector:
    """The same of stations with limits of their own."""
    found = numpy.zeros(len(stations))
    for rows, some in stations.by_width(_CELLS):
        found[rows] = _capacities(some, [column.of(rows) for column in columns])
    return found


def _spreads_of(stations: Stations, metrics: Whole) -> Spreads:
    """Latencies of stations, each of a metric of its own."""
    first, *others = sorted(set(metrics.tolist()))
    found = stations.spreads(_METRICS[first])
    for kind in others:
        mine, other = (metrics == kind)[:, None], stations.spreads(_METRICS[kind])
        found = Spreads(
            numpy.where(mine, other.medians_ms, found.medians_ms), numpy.where(mine, other.sigmas, found.sigmas)
        )
    return found


def _capacities(stations: Stations, columns: Sequence[Column]) -> Vector:
    margin = _Margin(
        stations.queues,
        tuple(column.kept(stations) for column in columns),
        tuple(numpy.maximum(1.0 - column.wanted, _FEWEST) for column in columns),
    )
    high = stations.most_per_s
    above, below = margin.at_rest, margin.at(high)
    found = numpy.where(above < 0.0, 0.0, high)
    sought = numpy.flatnonzero((above >= 0.0) & (below < 0.0))
    if sought.size:
        found[sought] = _crossing(margin.of(sought), high[sought], above[sought], below[sought])
    return found


def energies_per_token_mj(stations: Stations, rates_per_s: Vector) -> Vector:
    """Mean energy of a generated token at each rate, prefill's share included, idle's share excluded.

    The profile's energy per token holds the prefill of its own output length; a request of another output length
    pays the same prefill over more or fewer tokens.
    """
    found = numpy.zeros(len(stations))
    for rows, some in stations.by_width(_CELLS):
        found[rows] = _energies_mj(some, rates_per_s[rows])
    return found


def _energies_mj(stations: Stations, rates_per_s: Vector) -> Vector:
    weights, energies = presence(stations.queues, rates_per_s), stations.energies_mj
    full = energies[numpy.arange(len(stations)), stations.batches - 1]
    some, tail = weights[:, 1:-1], weights[:, -1]
    total = (some * energies[:, :-1]).sum(axis=1) + tail * full
    busy = some.sum(axis=1) + tail
    return numpy.where(rates_per_s > 0.0, total / numpy.where(busy > 0.0, busy, 1.0), energies[:, 0])


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """Probability that an arrival keeps a limit: for those that start at once by how many they find, else by room.

    Attributes:
        spare_s: time to wait that the limit leaves; infinite for a latency that does not wait.
    """

    at_once: Vector
    queued: Vector
    spare_s: Vector
    full_per_s: Vector

    def share(self, seen: Vector, rates_per_s: Vector) -> Vector:
        """Share of all arrivals."""
        leaving = numpy.maximum(self.full_per_s - rates_per_s, 0.0)
        waits = numpy.where(numpy.isinf(self.spare_s), 1.0, -numpy.expm1(-leaving * numpy.minimum(self.spare_s, 1e9)))
        return numpy.asarray((seen[:, :-1] * self.at_once).sum(axis=1) + seen[:, -1] * self.queued * waits)

    def of(self, rows: Whole) -> _Kept:
        """For some of the stations."""
        return _Kept(self.at_once[rows], self.queued[rows], self.spare_s[rows], self.full_per_s[rows])


def _kept(stations: Stations, metric: Metric, limits_ms: Vector) -> _Kept:
    waits = numpy.full(len(stations), metric is not Metric.TPOT)
    return _kept_of(stations, stations.spreads(metric), waits, limits_ms)


def _kept_of(stations: Stations, spreads: Spreads, waits: Bools, limits_ms: Vector) -> _Kept:
    last = (numpy.arange(len(stations)), stations.batches - 1)
    at_once = spreads.within(limits_ms)
    spare_s = numpy.maximum((limits_ms - spreads.p95_ms(*last)) / 1000.0, 0.0)
    queued = numpy.where(waits, 1.0, at_once[last])
    return _Kept(at_once, queued, numpy.where(waits, spare_s, numpy.inf), stations.full_per_s)


class _Margin:
    """How far the tightest limit is kept: log of misses allowed over misses, which is nearly linear in the rate.

    What the rate does not change is worked out once.
    """

    def __init__(self, queues: Queues, kept: tuple[_Kept, ...], allowed: tuple[Vector, ...]) -> None:
        self._queues, self._kept, self._allowed = queues, kept, allowed

    def at(self, rates_per_s: Vector) -> Vector:
        """Of each station at its rate; negative when a limit is broken."""
        seen = presence(self._queues, rates_per_s)
        return self._least([kept.share(seen, rates_per_s) for kept in self._kept])

    @property
    def at_rest(self) -> Vector:
        """Of each station without load: everybody starts at once."""
        return self._least([kept.at_once[:, 0] for kept in self._kept])

    def _least(self, shares: list[Vector]) -> Vector:
        least = numpy.full(len(self._queues.batches), numpy.inf)
        for allowed, share in zip(self._allowed, shares, strict=True):
            least = numpy.minimum(least, numpy.log(allowed / numpy.maximum(1.0 - share, _FEWEST)))
        return numpy.asarray(numpy.minimum(least, 1.0))

    def of(self, rows: Whole) -> _Margin:
        """Of some stations."""
        kept, allowed = (tuple(one.of(rows) for one in self._kept), tuple(one[rows] for one in self._allowed))
        return _Margin(self._queues.take(rows), kept, allowed)


def _crossing(margin: _Margin, high: Vector, above: Vector, below: Vector) -> Vector:
    """The greatest rates at which the margin is not negative: regula falsi with halving (Illinois), all at once."""
    low, found, rows = numpy.zeros(len(high)), high.copy(), numpy.arange(len(high))
    side, sought = numpy.zeros(len(high), dtype=int), numpy.ones(len(high), dtype=bool)
    for _ in range(_STEPS):
        done = sought & (high - low <= _PRECISION * high)
        found[rows[done]] = low[done]
        sought &= ~done
        left = numpy.flatnonzero(sought)
        if not left.size:
            return found
        # Leaving out costs copies: worth it when half are done.
        if 2 * left.size <= len(rows):
            sought = sought[left]
            margin, rows, side = margin.of(left), rows[left], side[left]
            low, high, above, below = low[left], high[left], above[left], below[left]
        middle = low + (high - low) * numpy.clip(above / (above - below), _CAUTION, 1.0 - _CAUTION)
        reached = margin.at(middle)
        falls = reached < 0.0
        # An end that stays twice counts less, or it would stay for ever.
        end = numpy.where(falls, below, above)
        less = 1.0 - reached / numpy.where(end == 0.0, 1.0, end)
        less = numpy.where((less > 0.0) & (end != 0.0), less, 0.5)
        above, below = (
            numpy.where(falls, numpy.where(side < 0, above * less, above), reached),
            numpy.where(falls, reached, numpy.where(side > 0, below * less, below)),
        )
        low, high = numpy.where(falls, low, middle), numpy.where(falls, middle, high)
        side = numpy.where(falls, -1, 1)
    found[rows[sought]] = low[sought]
    return found
