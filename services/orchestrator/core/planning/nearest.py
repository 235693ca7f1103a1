"""The nearest SLO that would be met, for a wish that cannot be: computed from what the points reach, never guessed.

For each operating point and number of replicas the limits it breaks are lifted to the figures it reaches (rounded up);
limits it keeps stay as they are. The nearest is the one that stretches its limits least and, tried again by the same
weighing and layout as any wish, comes out feasible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy

from services.orchestrator.core.facts.loads import Sheaf
from services.orchestrator.core.facts.wish import Demand, Deployment, LatencyLimit, Slo
from services.orchestrator.core.planning.capacity import broken_limits, capacities_per_s, percentiles_ms
from services.orchestrator.core.planning.figures import NOT_TOLD, Shares, drawn
from services.orchestrator.core.planning.points import Point
from services.orchestrator.core.planning.stations import Stations, stations_of
from services.orchestrator.core.planning.weigh import (
    SINGLE_AVAILABILITY,
    Option,
    most_replicas,
    replicas_wanted,
    weigh,
    weigh_all,
)

# Figures are rounded up to this share above what is reached, so that the answer holds when it is asked for.
_ROUNDING: Final = 0.01
# Numbers of replicas tried for a point: its most, and halves of it.
_HALVES: Final = 4
# One step towards the greatest demand of several points together for so many tries: six in a small fleet, which leave a
# sixty-fourth of the ratio; each is a program.
_TRIES_A_STEP: Final = 6
# Relaxed wishes tried again before giving up, in a small fleet and in a large one, where each try is a program.
TRIES: Final = 40
TRIES_OF_MANY: Final = 6


@dataclass(frozen=True, slots=True)
class Nearest:
    """A feasible SLO near the one asked for, and the demand that could be met with the one asked for.

    Attributes:
        binding: code of the limit stretched most, for instance "TTFT_LIMIT".
        slo: None when no SLO helps.
        stretch: sum of the logarithms of the stretched limits; 0 is the wish itself.
        requests_per_s: None when the SLO as it is meets no demand.
    """

    binding: str
    slo: Slo | None
    stretch: float = 0.0
    option: Option | None = None
    requests_per_s: float | None = None


def nearest(
    deployment: Deployment,
    points: tuple[Point, ...],
    sheaves: tuple[Sheaf, ...],
    fits: Callable[[Deployment, tuple[Option, ...]], bool],
    tries: int = TRIES,
) -> Nearest | None:
    """The nearest feasible wish; None when there is no point at all, or none has room.

    Args:
        points: what the deployment could use.
        sheaves: in which all profiles of the points are.
        fits: whether options together meet a wish beside everything else.
        tries: how many relaxed wishes are tried.
    """
    if not points:
        return None
    batches = [point.batch_limit for point in points]
    stations = stations_of([point.profile for point in points], batches, deployment.demand, sheaves)
    possible = _nearest_demand(deployment, points, stations, fits, tries)
    if possible and possible.requests_per_s:
        most = _together(deployment, possible.requests_per_s, points, sheaves, fits, tries)
        possible = replace(possible, requests_per_s=most)
    for stretch, binding, slo, point in _relaxed(deployment, points, stations)[:tries]:
        wish = replace(deployment, slo=slo)
        option = weigh(wish, point)
        if isinstance(option, Option) and not option.short and fits(wish, (option,)):
            return Nearest(binding, slo, stretch, option, possible.requests_per_s if possible else None)
    return possible


_Relaxed = tuple[float, str, Slo, Point]


def _relaxed(deployment: Deployment, points: tuple[Point, ...], stations: Stations) -> list[_Relaxed]:
    """Each point with each number of replicas and the limits lifted to what it reaches, least stretched first."""
    tried = [(row, count) for row, point in enumerate(points) for count in _counts(deployment, point)]
    rows, counts = (numpy.array(column) for column in zip(*tried, strict=True))
    each, limits = deployment.demand.requests_per_s / counts, deployment.slo.latency
    able = numpy.flatnonzero((each <= stations.most_per_s[rows]) & (counts >= deployment.min_replicas))
    if not able.size:
        return []
    some, each = stations.take(rows[able]), each[able]
    broken = broken_limits(some, limits, each) >= 0
    reached = percentiles_ms(some, [(limit.metric, limit.percentile) for limit in limits], each) if limits else ()
    found = []
    for number, place in enumerate(able.tolist()):
        row, count = tried[place]
        lifts = tuple(float(column[number]) for column in reached) if broken[number] else ()
        if one := _relax(deployment, points[row], some.take(numpy.array([number])), count, lifts):
            found.append(one)
    return sorted(found, key=lambda one: (one[0], one[3].variant.name, one[1]))


def _relax(
    deployment: Deployment, point: Point, station: Stations, count: int, reached_ms: tuple[float, ...]
) -> _Relaxed | None:
    stretches: list[tuple[float, str]] = []
    slo = _relax_quality(deployment.slo, point, stretches)
    if slo is None:
        return None
    if reached_ms:
        lifted = zip(slo.latency, reached_ms, strict=True)
        slo = replace(slo, latency=tuple(_lift(limit, reached, stretches) for limit, reached in lifted))
    wish = replace(deployment, slo=slo)
    if slo.availability is not None and replicas_wanted(replace(wish, demand=_silent(wish)), 1.0) > count:
        lowered = 1.0 - (1.0 - SINGLE_AVAILABILITY) ** count
        stretches.append((slo.availability - lowered, "AVAILABILITY"))
        slo = replace(slo, availability=lowered)
        wish = replace(wish, slo=slo)
    if slo.energy_per_token_mj is not None or slo.power_mw is not None:
        capacity = float(capacities_per_s(station, slo.latency)[0])
        if capacity <= 0.0 or (wanted := replicas_wanted(wish, capacity)) > most_replicas(wish, point):
            return None
        slo = _relax_power(wish, point, station, (wanted, capacity), stretches)
    if not stretches:
        # It meets everything alone: what binds is the room that others leave.
        return (0.0, "CAPACITY", slo, point)
    return (sum(s for s, _ in stretches), max(stretches)[1], slo, point)


def _relax_power(
    wish: Deployment,
    point: Point,
    station: Stations,
    share: tuple[int, float],
    stretches: list[tuple[float, str]],
) -> Slo:
    """Limits of energy and power lifted to what so many replicas of such a capacity draw."""
    slo, (replicas, capacity) = wish.slo, share
    mean, counts = numpy.array([wish.demand.compared_requests_per_s]), numpy.array([float(replicas)])
    shown = drawn(Shares(mean, (point,), station, counts, numpy.array([capacity]))).rows([NOT_TOLD])[0]
    if slo.energy_per_token_mj is not None and shown.energy_per_token_mj > slo.energy_per_token_mj:
        stretches.append((math.log(shown.energy_per_token_mj / slo.energy_per_token_mj), "ENERGY_LIMIT"))
        slo = replace(slo, energy_per_token_mj=_up(shown.energy_per_token_mj))
    if slo.power_mw is not None and shown.power_mw > slo.power_mw:
        stretches.append((math.log(shown.power_mw / slo.power_mw), "POWER_LIMIT"))
        slo = replace(slo, power_mw=_up(shown.power_mw))
    return slo


def _relax_quality(slo: Slo, point: Point, stretches: list[tuple[float, str]]) -> Slo | None:
    variant = point.variant
    top1, increase = variant.top1_agreement, variant.perplexity_increase
    if slo.min_top1_agreement is not None and (top1 is None or top1 < slo.min_top1_agreement):
        if top1 is None:
            return None
        stretches.append((math.log(slo.min_top1_agreement / max(top1, 1e-6)), "QUALITY_FLOOR"))
        slo = replace(slo, min_top1_agreement=math.floor(top1 * 10_000) / 10_000)
    if slo.max_perplexity_increase is not None and (increase is None or increase > slo.max_perplexity_increase):
        if increase is None:
            return None
        stretches.append((math.log((1 + increase) / (1 + slo.max_perplexity_increase)), "QUALITY_FLOOR"))
        slo = replace(slo, max_perplexity_increase=math.ceil(increase * 10_000) / 10_000)
    return slo


def _lift(limit: LatencyLimit, reached_ms: float, stretches: list[tuple[float, str]]) -> LatencyLimit:
    if reached_ms <= limit.limit_ms:
        return limit
    stretches.append((math.log(reached_ms / limit.limit_ms), f"{limit.metric}_LIMIT"))
    return replace(limit, limit_ms=_up(reached_ms))


def _nearest_demand(
    deployment: Deployment,
    points: tuple[Point, ...],
    stations: Stations,
    fits: Callable[[Deployment, tuple[Option, ...]], bool],
    tries: int,
) -> Nearest | None:
    """The greatest demand that fits with the SLO as it is, or any demand at all that shows what binds."""
    offers: list[tuple[float, Point]] = []
    capacities = capacities_per_s(stations, deployment.slo.latency).tolist()
    for point, capacity in zip(points, capacities, strict=True):
        for count in _counts(deployment, point) if capacity > 0.0 else ():
            rate = _down(min(capacity * count, deployment.demand.requests_per_s))
            if rate > 0.0:
                offers.append((rate, point))
    for rate, point in sorted(offers, key=lambda offer: (-offer[0], offer[1].variant.name))[:tries]:
        wish = replace(deployment, demand=replace(deployment.demand, requests_per_s=rate))
        option = weigh(wish, point)
        if isinstance(option, Option) and not option.short and fits(wish, (option,)):
            return Nearest("CAPACITY", None, 0.0, option, rate)
    return None


def _together(
    deployment: Deployment,
    alone_per_s: float,
    points: tuple[Point, ...],
    sheaves: tuple[Sheaf, ...],
    fits: Callable[[Deployment, tuple[Option, ...]], bool],
    tries: int,
) -> float:
    """The greatest demand that points meet together, found by halving the ratio to what one of them meets alone."""
    possible, asked = alone_per_s, deployment.demand.requests_per_s
    for _ in range(tries // _TRIES_A_STEP):
        rate = _down(math.sqrt(possible * asked))
        if rate <= possible:
            break
        wish = replace(deployment, demand=replace(deployment.demand, requests_per_s=rate))
        options = tuple(o for o in weigh_all(wish, points, sheaves) if isinstance(o, Option))
        if options and fits(wish, options):
            possible = rate
        else:
            asked = rate
    return possible


def _counts(deployment: Deployment, point: Point) -> tuple[int, ...]:
    most = most_replicas(deployment, point)
    counts = {max(most >> halving, 1) for halving in range(_HALVES)} | {max(deployment.min_replicas, 1)}
    return tuple(sorted(count for count in counts if count <= most))


def _silent(deployment: Deployment) -> Demand:
    return replace(deployment.demand, requests_per_s=0.0)


def _up(value: float) -> float:
    """Rounded up to a tenth above the rounding share."""
    return math.ceil(value * (1.0 + _ROUNDING) * 10.0) / 10.0


def _down(value: float) -> float:
    return math.floor(value * (1.0 - _ROUNDING) * 1000.0) / 1000.0
