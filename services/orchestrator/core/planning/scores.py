"""One replica of an option as numbers for the choice, in milliwatts so that deployments can be added up.

- energy: what the replica draws beyond what its device draws anyhow;
- latency, cost: regret against the deployment's best option, scaled so that it outweighs energy;
- what leaves the incumbents must beat them by `HYSTERESIS_SHARE`, and every new replica pays its change: loading,
  draining its predecessor, and the partition that meanwhile serves nobody, spread over `PAYBACK_S`.

Of options that take the same room, those that another beats in everything are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy

from services.orchestrator.core.facts.fleet import PowerSetting, cores_of
from services.orchestrator.core.facts.wish import Deployment, Objective
from services.orchestrator.core.planning.ground import Base, base_of
from services.orchestrator.core.planning.stations import Bools, Vector, Whole
from services.orchestrator.core.planning.weigh import Option
from tradewind.domain.figures import FigureSource

# Profiles repeat within a few per cent; a smaller gain is noise and not worth a swap.
HYSTERESIS_SHARE: Final = 0.05
# A swap must earn back its energy within this time; load changes on about this scale.
PAYBACK_S: Final = 600.0
# An option whose energy is not known comes after every one whose energy is: more than a board draws, not so much that
# the solver's arithmetic suffers.
UNKNOWN_ENERGY_MW: Final = 1e8
# A share of a latency or a price outweighs so many times the power that is at stake.
REGRET_WEIGHT: Final = 10.0
# Of what a replica draws at work, what it costs to stand without need: a process, memory and a place of others.
STANDING_SHARE: Final = 0.02
# Energy decides between options of equal latency or price.
_ENERGY_TIE: Final = 1e-3
# Options of one deployment for one kind of partition at one power setting; beyond it the dearest are left out.
MOST_ALIKE: Final = 4
# Profiles tell costs to so many digits; a difference in the next one is that of rounding in interpolation.
_TOLD_DIGITS: Final = 3
_HELD_DIGITS: Final = 9

key_of = base_of


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One replica of an option; compared by identity, for it is made once for a plan.

    Attributes:
        units: cores, or 1 for a slice.
        capacity: share of the wish's provisioned demand that it takes, at most 1; 1 without demand.
        cost_mw: what it costs as long as it stands.
        change_mw: what it costs when it is not there yet.
        incumbent: whether some running replica is of its base.
        selector: labels that its node must have.
        work_mw: what the deployment's requests take wherever they are served best, which no cost of an item has.
    """

    deployment_id: str
    option: Option
    base: Base
    kind: str
    units: int
    memory_bytes: int
    capacity: float
    cost_mw: float
    change_mw: float
    power: PowerSetting
    incumbent: bool
    selector: tuple[tuple[str, str], ...]
    work_mw: float


def items_of(
    deployment: Deployment, options: tuple[Option, ...], bases: frozenset[Base], *, budgeted: bool = False
) -> tuple[Item, ...]:
    """Items worth choosing from.

    Args:
        bases: of the replicas that the deployment has and may keep.
        budgeted: whether power is limited by a budget: what draws less is worth choosing then, however dear it is.
    """
    if not options:
        return ()
    scores = _scores(deployment, options, bases, by_power=budgeted or deployment.slo.power_mw is not None)
    return tuple(_item(deployment, options[row], scores, row) for row in _undominated(scores).tolist())


@dataclass(frozen=True, slots=True, eq=False)
class _Scores:
    """Options with what they are ranked by, a row each.

    Attributes:
        rooms: number of device class, kind of partition and power setting.
        ranks: the dearest last, those of a room one after the other.
        told_mw, told_new_mw: cost without and with its change, as far as profiles tell it.
        held: capacity without what rounding makes of it, by which no demand needs another replica.
        active_mw: of a replica at work where power is limited, else 0: no option beats another by it.
        work_mw: of the deployment, see `Item`.
    """

    rooms: Whole
    ranks: Whole
    capacities: Vector
    costs_mw: Vector
    changes_mw: Vector
    incumbent: Bools
    memory_bytes: Vector
    told_mw: Vector
    told_new_mw: Vector
    held: Vector
    active_mw: Vector
    work_mw: float


def _unit_mw(deployment: Deployment, options: tuple[Option, ...]) -> float:
    """What the objective's own unit is worth."""
    if deployment.objective is Objective.ENERGY:
        return 1.0
    devices = [option.point.device for option in options]
    stake = max(max(d.idle_power_mw for d in devices), min(option.shown.power_mw for option in options), 1.0)
    return REGRET_WEIGHT * stake / max(min(option.cost for option in options), 1e-9)


def _scores(deployment: Deployment, options: tuple[Option, ...], bases: frozenset[Base], *, by_power: bool) -> _Scores:
    rate, incumbent = deployment.demand.requests_per_s, numpy.array([option.base in bases for option in options])
    capacities = numpy.array([option.shown.capacity for option in options])
    capacities = numpy.minimum(capacities / rate * (1 + 1e-9), 1.0) if rate > 0.0 else numpy.ones(len(options))
    whole = _costs_mw(deployment, options)
    work_mw = _work_mw(deployment, options)
    costs = _beyond_mw(deployment, options, whole, work_mw) if work_mw > 0.0 else whole
    if bases:
        costs = numpy.where(incumbent, costs, costs + whole * HYSTERESIS_SHARE)
    changes = numpy.array([change_mw(option) for option in options]) if bases else numpy.zeros(len(options))
    rooms = _numbered([(o.point.key[1], o.point.key[2], o.point.key[4]) for o in options])
    return _Scores(
        rooms=rooms,
        ranks=_ranks(options, rooms, _rounded(costs / numpy.maximum(capacities, 1e-9), _TOLD_DIGITS)),
        capacities=capacities,
        costs_mw=costs,
        changes_mw=changes,
        incumbent=incumbent,
        memory_bytes=numpy.array([float(option.point.memory_bytes) for option in options]),
        told_mw=_rounded(costs, _TOLD_DIGITS),
        told_new_mw=_rounded(costs + changes, _TOLD_DIGITS),
        held=_rounded(capacities, _HELD_DIGITS),
        work_mw=work_mw,
        active_mw=_rounded(numpy.array([o.shown.active_mw if by_power else 0.0 for o in options]), _TOLD_DIGITS),
    )


def _costs_mw(deployment: Deployment, options: tuple[Option, ...]) -> Vector:
    """What a replica costs as long as it stands."""
    replicas = numpy.array([option.shown.replicas for option in options])
    costs: Vector = numpy.array([option.cost for option in options]) * _unit_mw(deployment, options) / replicas
    if deployment.objective is not Objective.ENERGY:
        costs += numpy.array([option.shown.power_mw for option in options]) / replicas * _ENERGY_TIE
        return costs
    unknown = [
        option.point.energy_source[0] in (FigureSource.UNAVAILABLE, FigureSource.UNSPECIFIED) for option in options
    ]
    return costs + numpy.where(unknown, UNKNOWN_ENERGY_MW, 0.0)


def _work_mw(deployment: Deployment, options: tuple[Option, ...]) -> float:
    """What the requests take wherever they are served best; 0 where energy is not what is chosen by."""
    demand = deployment.demand
    if deployment.objective is not Objective.ENERGY or demand.requests_per_s <= 0.0:
        return 0.0
    token_mj = min(option.shown.energy_per_token_mj for option in options)
    return token_mj * demand.output_tokens * demand.compared_requests_per_s


def _beyond_mw(deployment: Deployment, options: tuple[Option, ...], whole_mw: Vector, work_mw: float) -> Vector:
    """What a replica costs beyond what the requests take wherever they are served best.

    All requests are served by any plan, and a replica more or a larger one adds none: it adds what it draws without
    work, and, for its part of the load, what a request takes more on it than on the best. Charging each replica for
    the work of its share would make plans of replicas that just cover the demand, however small, cheaper than those
    of fewer boards that cover more.
    """
    demand = deployment.demand
    active = numpy.array([option.shown.active_mw for option in options])
    tokens_mj = numpy.array([option.shown.energy_per_token_mj for option in options]) * demand.output_tokens
    parts = numpy.minimum([option.shown.capacity for option in options], demand.requests_per_s) / demand.requests_per_s
    more = (tokens_mj * demand.compared_requests_per_s - work_mw) * parts
    beyond = whole_mw - active + more + whole_mw * STANDING_SHARE
    # A difference has fewer digits than what it is made of.
    costs: Vector = numpy.round(beyond / whole_mw.max(), _HELD_DIGITS) * whole_mw.max()
    return costs


def _numbered(names: list[tuple[object, ...]]) -> Whole:
    numbers: dict[tuple[object, ...], int] = {}
    return numpy.array([numbers.setdefault(name, len(numbers)) for name in names])


def _ranks(options: tuple[Option, ...], rooms: Whole, per_request_mw: Vector) -> Whole:
    """Of equal costs the larger batch limit first: it costs nothing until used, and then shares."""
    names = [(option.point.variant.name, option.point.variant.variant_id) for option in options]
    order = {name: number for number, name in enumerate(sorted(set(names)))}
    batches = numpy.array([option.point.batch_limit for option in options])
    service_s = numpy.array([option.service_s for option in options])
    places = numpy.array([order[name] for name in names])
    found: Whole = numpy.lexsort((places, service_s, -batches, per_request_mw, rooms))
    return found


def _item(deployment: Deployment, option: Option, scores: _Scores, row: int) -> Item:
    profile = option.point.profile
    return Item(
        deployment_id=deployment.deployment_id,
        option=option,
        base=option.base,
        kind=profile.partition_kind,
        units=cores_of(profile.partition_kind) or 1,
        memory_bytes=option.point.memory_bytes,
        capacity=float(scores.capacities[row]),
        cost_mw=float(scores.costs_mw[row]),
        change_mw=float(scores.changes_mw[row]),
        power=profile.power,
        incumbent=bool(scores.incumbent[row]),
        selector=deployment.node_selector,
        work_mw=scores.work_mw,
    )


def change_mw(option: Option) -> float:
    """Power that one new replica amounts to when its change is spread over `PAYBACK_S`.

    Loading takes `load_s` at the power of work; for that time and for one request of draining the room is held twice.
    """
    point, load_s = option.point, option.point.profile.load_s
    return (load_s * point.at_work_mw + (load_s + option.service_s) * point.idle_mw) / PAYBACK_S


def _undominated(scores: _Scores) -> Whole:
    """Rows worth a column, by room and rank: incumbents, the first that none before beats, strongest and thriftiest."""
    ranks = scores.ranks
    rooms, incumbent = scores.rooms[ranks], scores.incumbent[ranks]
    beaten = _beaten(scores)
    wanted = ~incumbent & ~beaten
    before: Whole = numpy.cumsum(wanted) - wanted
    firsts = numpy.searchsorted(rooms, rooms)
    kept = incumbent | (wanted & (before - before[firsts] < MOST_ALIKE))
    # Where room is scarce the dearest may be the only one that does.
    by_strength = numpy.lexsort((scores.memory_bytes[ranks], scores.told_mw[ranks], -scores.held[ranks], rooms))
    # Where power is limited, so may the one that draws least for its share.
    draws_mw = scores.active_mw[ranks] / numpy.maximum(scores.held[ranks], 1e-9)
    by_thrift = numpy.lexsort((scores.told_mw[ranks], draws_mw, rooms)) if draws_mw.any() else by_strength
    heads = numpy.unique(rooms, return_index=True)[1]
    last = numpy.unique(numpy.concatenate([by_strength[heads], by_thrift[heads]]))
    added = last[~kept[last]]
    rows = numpy.concatenate([numpy.flatnonzero(kept), added])
    found: Whole = ranks[rows[numpy.argsort(rooms[rows], kind="stable")]]
    return found


def _beaten(scores: _Scores) -> Bools:
    """Which, by rank, one before it in its room is no worse than in anything."""
    ranks = scores.ranks
    rooms, beaten = scores.rooms[ranks], numpy.zeros(len(ranks), dtype=bool)
    held, (told_mw, new_mw) = -scores.held, (scores.told_mw, scores.told_new_mw)
    columns = [column[ranks] for column in (held, scores.memory_bytes, told_mw, new_mw, scores.active_mw)]
    for back in range(1, int(numpy.bincount(rooms).max())):
        worse = rooms[back:] == rooms[:-back]
        for column in columns:
            worse &= column[:-back] <= column[back:]
        beaten[back:] |= worse
    return beaten


def _rounded(values: Vector, digits: int) -> Vector:
    """Values to so many digits: what differs beyond them is rounding's doing."""
    sizes = numpy.power(10.0, digits - 1 - numpy.floor(numpy.log10(numpy.where(values == 0.0, 1.0, numpy.abs(values)))))
    found: Vector = numpy.round(values * sizes) / sizes
    return found
