"""Weighs operating points against a deployment's SLO: what each reaches, what it draws, or the limit it breaks.

Power of an option is the active power of the demand (energy per token × tokens a second) plus, for each replica, the
share of its device's idle power that it holds and what a loaded replica adds to idle. The share is shown and held
against a power limit, and is no reason to choose: a device that is on draws its idle power whatever its cores do, so
the energy objective makes least of active power and what being loaded adds.

All points of a wish are weighed side by side: the queueing calculation is made of a few large steps, not many small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy

from services.orchestrator.core.facts.explanation import Candidate, Refusal
from services.orchestrator.core.facts.loads import Sheaf, sheaves_of
from services.orchestrator.core.facts.variant import Variant
from services.orchestrator.core.facts.wish import Deployment, LatencyLimit, Metric, Objective, Slo
from services.orchestrator.core.planning.capacity import (
    Column,
    broken_at_rest,
    capacities_within,
    columns_of,
    reached_at_rest_ms,
)
from services.orchestrator.core.planning.figures import (
    NOT_TOLD,
    Drawn,
    Figures,
    Latencies,
    Shares,
    drawn,
    latencies_of,
    told,
)
from services.orchestrator.core.planning.ground import Base
from services.orchestrator.core.planning.points import Point, PointKey
from services.orchestrator.core.planning.stations import (
    Served,
    Stations,
    Vector,
    Whole,
    stations_beside,
    stations_together,
)

# A single replica is ready this share of the time: a crash an hour, with about half a minute to load again.
SINGLE_AVAILABILITY: Final = 0.99
# Above this share of the limit a figure is the limit, for comparison of floating numbers.
_SLACK: Final = 1e-9
# Points side by side: their figures take some tens of megabytes.
MOST_SIDE_BY_SIDE: Final = 8_192
# Stands for the capacity of a replica that takes no request.
_NO_CAPACITY: Final = 1e-9
_TOO_SLOW: Final = {metric: Refusal(f"{metric}_LIMIT") for metric in Metric}


class Option(NamedTuple):
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


class Refused(NamedTuple):
    """A point that does not keep the SLO; with figures when it came so far.

    Attributes:
        words: why; empty when it is too slow, for which the reason is worded, and figures are worked out, when told.
        limit: of latency, which a single request breaks already.
        reached_ms: its latency.
    """

    point: Point
    refusal: Refusal
    words: str
    shown: Figures | None = None
    limit: LatencyLimit | None = None
    reached_ms: float = 0.0

    @property
    def slow(self) -> bool:
        """Whether it breaks a latency limit with a single request already."""
        return self.limit is not None

    @property
    def reason(self) -> str:
        """Why, in words."""
        if self.limit is None:
            return self.words
        reached = f"{self.limit.metric} p{self.limit.percentile:g} is {self.reached_ms:.4g} ms with a single request"
        return f"{reached}, at most {self.limit.limit_ms:.4g} ms is asked for"

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


def weigh_loads(loads: Sequence[Load]) -> list[tuple[Option | Refused, ...]]:
    """The points of some wishes, side by side."""
    return judged(loads, able_of(loads))


class Able(NamedTuple):
    """What points of a wish can do, whatever its rate is.

    Attributes:
        refused: for each point, None for those that are able.
        stations: the able ones; None when there are none.
        capacities: theirs.
    """

    refused: tuple[Refused | None, ...]
    stations: Stations | None
    capacities: Vector


def able_of(loads: Sequence[Load]) -> list[Able]:
    """What the points of some wishes can do, side by side."""
    return [found for portion in _portions(loads) for found in _able_of_portion(portion)]


def judged(loads: Sequence[Load], able: Sequence[Able]) -> list[tuple[Option | Refused, ...]]:
    """The points of some wishes with what they can do, each as an option or refused by the first limit it breaks."""
    left, found = iter(able), list[tuple[Option | Refused, ...]]()
    for portion in _portions(loads):
        found += _judge_portion(portion, [next(left) for _ in portion])
    return found


def _portions(loads: Sequence[Load]) -> list[list[Load]]:
    portions, size = [list[Load]()], 0
    for load in loads:
        if portions[-1] and size + len(load.points) > MOST_SIDE_BY_SIDE:
            portions.append([])
            size = 0
        portions[-1].append(load)
        size += len(load.points)
    return portions


def _able_of_portion(loads: list[Load]) -> list[Able]:
    poor = [_poor(load) for load in loads]
    left = [
        [point for point, one in zip(load.points, mine, strict=True) if one is None]
        for load, mine in zip(loads, poor, strict=True)
    ]
    scale = _scale_of([Load(load.deployment, mine, load.sheaves) for load, mine in zip(loads, left, strict=True)])
    if scale is None:
        return [Able(tuple(mine), None, numpy.zeros(0)) for mine in poor]
    broken = broken_at_rest(scale.stations, scale.columns)
    slow, fast = numpy.flatnonzero(broken >= 0), numpy.flatnonzero(broken < 0)
    refused = dict(zip(slow.tolist(), _too_slow(scale.take(slow), broken[slow]), strict=True)) if slow.size else {}
    some, numbers = scale.take(fast), iter(range(len(scale.points)))
    capacities = capacities_within(some.stations, some.columns) if fast.size else numpy.zeros(0)
    found = []
    for owner, mine in enumerate(poor):
        rows = numpy.flatnonzero(some.owners == owner)
        stations = some.stations.take(rows).apart() if rows.size else None
        found.append(Able(tuple(one or refused.get(next(numbers)) for one in mine), stations, capacities[rows]))
    return found


def _judge_portion(loads: list[Load], able: list[Able]) -> list[tuple[Option | Refused, ...]]:
    left = [
        [point for point, refused in zip(load.points, one.refused, strict=True) if refused is None]
        for load, one in zip(loads, able, strict=True)
    ]
    found = iter(list[Option | Refused]())
    if stations := [one.stations for one in able if one.stations is not None]:
        owners = numpy.repeat(numpy.arange(len(loads)), [len(points) for points in left])
        points, wishes = [point for mine in left for point in mine], [load.deployment for load in loads]
        scale = _Scale(wishes, owners, points, stations_beside(stations), ())
        found = iter(_judged(scale, numpy.concatenate([one.capacities for one in able])))
    return [tuple(refused or next(found) for refused in one.refused) for one in able]


def _poor(load: Load) -> list[Refused | None]:
    """Refusals of points whose quality is too low, None for the others."""
    variants = {point.variant.variant_id: point.variant for point in load.points}
    reasons = {name: quality_reason(load.deployment, variant) for name, variant in variants.items()}
    poor = [reasons[point.variant.variant_id] for point in load.points]
    refused = Refusal.QUALITY_FLOOR
    return [Refused(point, refused, why) if why else None for point, why in zip(load.points, poor, strict=True)]


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


@dataclass(frozen=True, slots=True, eq=False)
class _Scale:
    """Points of some wishes side by side.

    Attributes:
        owners: of each point the number of its wish.
        columns: latency limits.
    """

    wishes: Sequence[Deployment]
    owners: Whole
    points: Sequence[Point]
    stations: Stations
    columns: Sequence[Column]

    def take(self, rows: Whole) -> _Scale:
        """Some of the points."""
        points, columns = [self.points[row] for row in rows.tolist()], [column.of(rows) for column in self.columns]
        return _Scale(self.wishes, self.owners[rows], points, self.stations.take(rows), columns)

    def each(self, figure: Callable[[Deployment], float]) -> Vector:
        """For each point a figure of its wish."""
        return numpy.array([figure(wish) for wish in self.wishes])[self.owners]


def _scale_of(loads: Sequence[Load]) -> _Scale | None:
    wishes, points = [load.deployment for load in loads], [point for load in loads for point in load.points]
    if not points:
        return None
    served = [
        Served(
            [p.profile for p in load.points], [p.batch_limit for p in load.points], load.deployment.demand, load.sheaves
        )
        for load in loads
        if load.points
    ]
    owners = numpy.repeat(numpy.arange(len(loads)), [len(load.points) for load in loads])
    columns = columns_of([(len(load.points), load.deployment.slo.latency) for load in loads])
    return _Scale(wishes, owners, points, stations_together(served), columns)


def _too_slow(scale: _Scale, broken: Whole) -> list[Refused]:
    """Refusals of points whose latency breaks a limit with a single request already.

    Args:
        broken: for each point the number of the limit.
    """
    reached_ms = reached_at_rest_ms(scale.stations, scale.columns, broken).tolist()
    limits = [
        scale.wishes[owner].slo.latency[n] for owner, n in zip(scale.owners.tolist(), broken.tolist(), strict=True)
    ]
    return [
        Refused(point, _TOO_SLOW[limit.metric], "", None, limit, reached)
        for point, limit, reached in zip(scale.points, limits, reached_ms, strict=True)
    ]


def _judged(scale: _Scale, capacities: Vector) -> list[Option | Refused]:
    """Points that are fast enough alone, with as many replicas as the demand takes, held against limits of energy."""
    stations, points = scale.stations, scale.points
    rates, least = scale.each(lambda wish: wish.demand.requests_per_s), scale.each(replicas_needed)
    replicas = numpy.maximum(numpy.ceil(rates / numpy.maximum(capacities, _NO_CAPACITY) - _SLACK), least)
    means = scale.each(lambda wish: wish.demand.compared_requests_per_s)
    columns = drawn(Shares(means, points, stations, replicas, capacities))
    shown = columns.rows(_latencies(scale, numpy.minimum(rates / replicas, stations.most_per_s)))
    costs, service_s = _costs(scale, columns, shown), (stations.batches / stations.full_per_s).tolist()
    options = list(map(Option, points, shown, costs, service_s))
    most = numpy.minimum([p.places for p in points], scale.each(lambda wish: wish.max_replicas or math.inf))
    short = replicas > most
    for row in numpy.flatnonzero(short).tolist():
        words = _short(scale.wishes[scale.owners[row]], points[row], shown[row])
        options[row] = options[row]._replace(short=words)
    costly = columns.energies_mj > scale.each(lambda wish: _most(wish.slo.energy_per_token_mj))
    # A part draws less; what is drawn together is the program's business.
    hungry = ~short & (columns.power_mw > scale.each(lambda wish: _most(wish.slo.power_mw)))
    found: list[Option | Refused] = [*options]
    for row in numpy.flatnonzero(costly | hungry).tolist():
        slo = scale.wishes[scale.owners[row]].slo
        found[row] = Refused(points[row], *_against_energy(slo, shown[row], by_energy=bool(costly[row])), shown[row])
    return found


def _most(limit: float | None) -> float:
    return math.inf if limit is None else limit * (1.0 + _SLACK)


def _latencies(scale: _Scale, rates_per_s: Vector) -> list[Latencies]:
    """Latencies at a rate for each point, where something but a report asks for them."""
    found = [NOT_TOLD] * len(scale.points)
    for number, wish in enumerate(scale.wishes):
        if wish.objective is Objective.LATENCY or wish.demand.requests_per_s <= 0.0:
            rows = numpy.flatnonzero(scale.owners == number)
            if rows.size:
                mine = latencies_of(wish.slo, scale.stations.take(rows), rates_per_s[rows])
                for row, reached in zip(rows.tolist(), mine, strict=True):
                    found[row] = reached
    return found


def _costs(scale: _Scale, columns: Drawn, shown: Sequence[Figures]) -> list[float]:
    """What the objectives make least of, in their own units."""
    objectives, devices = [wish.objective for wish in scale.wishes], [point.device for point in scale.points]
    shares, replicas = numpy.array([point.device_share for point in scale.points]), columns.replicas
    idle_mw = numpy.array([device.idle_power_mw for device in devices])
    prices = numpy.array([device.price_per_hour or 1.0 for device in devices])
    by_objective = {
        Objective.ENERGY: columns.power_mw - replicas * idle_mw * shares,
        Objective.LATENCY: numpy.array([one.latencies.e2e_ms for one in shown]),
        # Without a price every device costs the same, so least money is the least share of devices held.
        Objective.COST: replicas * shares * prices,
    }
    wanted = numpy.array([list(by_objective).index(objective) for objective in objectives])[scale.owners]
    chosen: list[float] = numpy.choose(wanted, list(by_objective.values())).tolist()
    return chosen


def _short(deployment: Deployment, point: Point, shown: Figures) -> str:
    """Why a point cannot do alone."""
    most = most_replicas(deployment, point)
    limit = "the wish allows" if deployment.max_replicas and most == deployment.max_replicas else "the nodes take"
    if shown.replicas <= deployment.min_replicas:
        return f"at least {deployment.min_replicas} replicas are asked for, {limit} at most {most}"
    need = f"{shown.replicas} replicas would be needed for {deployment.demand.requests_per_s:.4g} requests/s"
    return f"{need} at {shown.capacity:.4g} each, {limit} at most {most}"


def _against_energy(slo: Slo, shown: Figures, *, by_energy: bool) -> tuple[Refusal, str]:
    """The limit of energy or power that a point breaks."""
    if by_energy:
        words = f"{shown.energy_per_token_mj:.4g} mJ a token, at most {slo.energy_per_token_mj:.4g} mJ is asked for"
        return Refusal.ENERGY_LIMIT, words
    words = f"{shown.power_mw:.4g} mW with its share of idle, at most {slo.power_mw:.4g} mW is asked for"
    return Refusal.POWER_LIMIT, words
