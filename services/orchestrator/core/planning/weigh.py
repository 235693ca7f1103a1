"""Weighs operating points against a deployment's SLO: what each reaches, what it draws, or the limit it breaks.

Power of an option is the active power of the demand (energy per token × tokens a second) plus, for each replica, the
share of its device's idle power that it holds and what a loaded replica adds to idle. The share is shown and held
against a power limit, and is no reason to choose: a device that is on draws its idle power whatever its cores do, so
the energy objective makes least of active power and what being loaded adds.

All points of a wish are weighed side by side: the queueing calculation is made of a few large steps, not many small.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy

from services.orchestrator.core.facts.explanation import Candidate, Refusal
from services.orchestrator.core.facts.loads import Sheaf, sheaves_of
from services.orchestrator.core.facts.variant import Variant
from services.orchestrator.core.facts.wish import Deployment, Metric, Objective, Slo
from services.orchestrator.core.planning.capacity import alone_ms, broken_limits, capacities_together
from services.orchestrator.core.planning.figures import Figures, Latencies, Shares, figures_of, latencies_of, told
from services.orchestrator.core.planning.ground import Base
from services.orchestrator.core.planning.points import Point, PointKey
from services.orchestrator.core.planning.stations import Stations, Vector, stations_of

# A single replica is ready this share of the time: a crash an hour, with about half a minute to load again.
SINGLE_AVAILABILITY: Final = 0.99
# Above this share of the limit a figure is the limit, for comparison of floating numbers.
_SLACK: Final = 1e-9
_TOO_SLOW: Final = {metric: Refusal(f"{metric}_LIMIT") for metric in Metric}


@dataclass(frozen=True, slots=True)
class Option:
    """A point that keeps the SLO.

    Attributes:
        shown: figures at the planned load; as many replicas as the demand takes when every one is of this point.
        cost: what the objective makes least of, in its own unit, of all replicas.
        service_s: mean time of a request when the batch is full.
        short: why it cannot do alone and may only take part; empty when it can.
    """

    point: Point
    shown: Figures
    cost: float
    service_s: float
    short: str = ""

    @property
    def key(self) -> PointKey:
        """The base with its power setting."""
        return self.point.key

    @property
    def base(self) -> Base:
        """Variant, device class, partition kind, batch limit: what a running replica is compared by."""
        return self.key[:4]

    @property
    def replicas(self) -> int:
        """What the demand takes."""
        return self.shown.replicas

    @property
    def capacity(self) -> float:
        """Requests a second that one replica takes."""
        return self.shown.capacity

    @property
    def candidate(self) -> Candidate:
        """As a line of the explanation."""
        return told(self.point, self.shown)


@dataclass(frozen=True, slots=True)
class Refused:
    """A point that does not keep the SLO; with figures when it came so far.

    Those of points that are too slow (`slow`) are worked out when they are told.
    """

    point: Point
    refusal: Refusal
    reason: str
    shown: Figures | None = None

    @property
    def slow(self) -> bool:
        """Whether it breaks a latency limit with a single request already."""
        return self.shown is None and self.refusal in _TOO_SLOW.values()

    @property
    def candidate(self) -> Candidate:
        """As a line of the explanation."""
        return told(self.point, self.shown, self.refusal, self.reason)


@dataclass(frozen=True, slots=True)
class Load:
    """What lies on the scales: the points of a wish, and the sheaves in which all their profiles are."""

    deployment: Deployment
    points: Sequence[Point]
    sheaves: tuple[Sheaf, ...]


def weigh(deployment: Deployment, point: Point) -> Option | Refused:
    """A single point weighed."""
    return weigh_all(deployment, (point,), sheaves_of((point.profile,)))[0]


def weigh_all(
    deployment: Deployment, points: Sequence[Point], sheaves: tuple[Sheaf, ...]
) -> tuple[Option | Refused, ...]:
    """Each point as an option, or refused by the first limit that it breaks.

    Args:
        sheaves: in which all profiles of the points are.
    """
    return weigh_loads((Load(deployment, points, sheaves),))[0]


def weigh_loads(loads: Iterable[Load]) -> list[tuple[Option | Refused, ...]]:
    """The points of some wishes, all side by side."""
    sifted = [_sifted(load) for load in loads]
    able = [(one, one.stations) for one in sifted if one.stations is not None]
    capacities = capacities_together([(stations, one.load.deployment.slo.latency) for one, stations in able])
    shares = [_share(one, stations, mine) for (one, stations), mine in zip(able, capacities, strict=True)]
    for (one, stations), share, shown in zip(able, shares, figures_of(shares), strict=True):
        service_s = (stations.batches / stations.full_per_s).tolist()
        wish = one.load.deployment
        options = [_judged(wish, *point) for point in zip(share.points, shown, service_s, strict=True)]
        one.results.update(zip(one.able, options, strict=True))
    return [tuple(one.results[number] for number in range(len(one.load.points))) for one in sifted]


def quality_reason(deployment: Deployment, variant: Variant) -> str:
    """Why the variant's quality is below the SLO's floor; empty when it is not."""
    slo = deployment.slo
    if slo.min_top1_agreement is not None:
        if variant.top1_agreement is None:
            return f"at least {slo.min_top1_agreement:.4g} top-1 agreement is asked for, its own was never checked"
        if variant.top1_agreement < slo.min_top1_agreement:
            return f"top-1 agreement {variant.top1_agreement:.4f}, at least {slo.min_top1_agreement:.4g} is asked for"
    if slo.max_perplexity_increase is not None:
        if variant.perplexity_increase is None:
            return "a limit of perplexity increase is asked for, its own was never checked"
        if variant.perplexity_increase > slo.max_perplexity_increase:
            most = slo.max_perplexity_increase
            return f"perplexity increase {variant.perplexity_increase:.4f}, at most {most:.4g} is asked for"
    return ""


def replicas_needed(deployment: Deployment) -> int:
    """Replicas for the wish's minimum, its availability (replicas fail independently) and its failure domains."""
    count = max(deployment.min_replicas, 1, deployment.spread.domains if deployment.spread else 1)
    availability = deployment.slo.availability
    if availability is not None:
        while 1.0 - (1.0 - SINGLE_AVAILABILITY) ** count < availability - _SLACK:
            count += 1
    return count


def replicas_wanted(deployment: Deployment, capacity_requests_per_s: float) -> int:
    """Replicas that the wish needs, of this capacity each."""
    return _replicas(deployment.demand.requests_per_s, replicas_needed(deployment), capacity_requests_per_s)


def _replicas(requests_per_s: float, least: int, capacity_requests_per_s: float) -> int:
    if requests_per_s <= 0.0:
        return least
    return max(least, math.ceil(requests_per_s / capacity_requests_per_s - _SLACK))


def most_replicas(deployment: Deployment, point: Point) -> int:
    """Replicas that the wish and the nodes allow."""
    return min(point.places, deployment.max_replicas or point.places)


@dataclass(frozen=True, slots=True)
class _Sifted:
    """A load of which everything is refused that breaks a limit with no load at all.

    Attributes:
        results: refusals, by number of the point.
        able: numbers of the others; `stations` are theirs.
    """

    load: Load
    results: dict[int, Option | Refused]
    able: list[int]
    stations: Stations | None


def _sifted(load: Load) -> _Sifted:
    wish, points, results = load.deployment, load.points, dict[int, Option | Refused]()
    poor = {p.variant.variant_id: quality_reason(wish, p.variant) for p in points}
    for number, point in enumerate(points):
        if reason := poor[point.variant.variant_id]:
            results[number] = Refused(point, Refusal.QUALITY_FLOOR, reason)
    left = numpy.array([number for number in range(len(points)) if number not in results], dtype=numpy.int64)
    if not left.size:
        return _Sifted(load, results, [], None)
    good = [points[number] for number in left.tolist()]
    stations = stations_of([p.profile for p in good], [p.batch_limit for p in good], wish.demand, load.sheaves)
    broken = broken_limits(stations, wish.slo.latency, numpy.zeros(len(good)))
    slow, able = numpy.flatnonzero(broken >= 0), numpy.flatnonzero(broken < 0)
    if slow.size:
        refused = _too_slow(wish, [good[n] for n in slow.tolist()], stations.take(slow), broken[slow].tolist())
        results.update(zip(left[slow].tolist(), refused, strict=True))
    return _Sifted(load, results, left[able].tolist(), stations.take(able) if able.size else None)


def _too_slow(deployment: Deployment, points: list[Point], stations: Stations, broken: list[int]) -> list[Refused]:
    """Refusals of points whose latency breaks a limit with a single request already.

    Args:
        broken: for each point the number of the limit.
    """
    limits = deployment.slo.latency
    reached_ms = [alone_ms(stations, limit.metric, limit.percentile).tolist() for limit in limits]
    found = []
    for row, (point, which) in enumerate(zip(points, broken, strict=True)):
        limit = limits[which]
        reached = f"{limit.metric} p{limit.percentile:g} is {reached_ms[which][row]:.4g} ms with a single request"
        reason = f"{reached}, at most {limit.limit_ms:.4g} ms is asked for"
        found.append(Refused(point, _TOO_SLOW[limit.metric], reason))
    return found


def _share(one: _Sifted, stations: Stations, capacities: Vector) -> Shares:
    """Points that are fast enough alone, with as many replicas as the demand takes."""
    deployment = one.load.deployment
    rate, least = deployment.demand.requests_per_s, replicas_needed(deployment)
    latencies: Sequence[Latencies] = ()
    wanted = numpy.array([float(_replicas(rate, least, capacity)) for capacity in capacities.tolist()])
    if deployment.objective is Objective.LATENCY or rate <= 0.0:
        latencies = latencies_of(deployment.slo, stations, numpy.minimum(rate / wanted, stations.most_per_s))
    points = [one.load.points[number] for number in one.able]
    mean = deployment.demand.compared_requests_per_s
    return Shares(mean, points, stations, wanted, capacities, latencies)


def _judged(deployment: Deployment, point: Point, shown: Figures, service_s: float) -> Option | Refused:
    most, short = most_replicas(deployment, point), ""
    if shown.replicas > most:
        limit = "the wish allows" if deployment.max_replicas and most == deployment.max_replicas else "the nodes take"
        need = f"{shown.replicas} replicas would be needed for {deployment.demand.requests_per_s:.4g} requests/s"
        short = f"{need} at {shown.capacity:.4g} each, {limit} at most {most}"
    if broken := _against_energy(deployment.slo, shown, alone=not short):
        return Refused(point, *broken, shown)
    return Option(point, shown, _cost(deployment.objective, point, shown), service_s, short)


def _cost(objective: Objective, point: Point, shown: Figures) -> float:
    """What the objective makes least of, in its own unit."""
    if objective is Objective.ENERGY:
        return shown.power_mw - shown.replicas * point.device.idle_power_mw * point.device_share
    if objective is Objective.LATENCY:
        return shown.latencies.e2e_ms
    # Without a price every device costs the same, so least money is the least share of devices held.
    return shown.replicas * point.device_share * (point.device.price_per_hour or 1.0)


def _against_energy(slo: Slo, shown: Figures, *, alone: bool) -> tuple[Refusal, str] | None:
    """The limit of energy or power that a point breaks.

    Args:
        alone: it meets the whole wish. A part draws less; what is drawn together is the program's business.
    """
    energy, power = shown.energy_per_token_mj, shown.power_mw
    if slo.energy_per_token_mj is not None and energy > slo.energy_per_token_mj * (1 + _SLACK):
        return Refusal.ENERGY_LIMIT, f"{energy:.4g} mJ a token, at most {slo.energy_per_token_mj:.4g} mJ is asked for"
    if alone and slo.power_mw is not None and power > slo.power_mw * (1 + _SLACK):
        return Refusal.POWER_LIMIT, f"{power:.4g} mW with its share of idle, at most {slo.power_mw:.4g} mW is asked for"
    return None
