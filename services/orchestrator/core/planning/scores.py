"""One replica of an option as numbers for the choice, in milliwatts so that deployments can be added up.

- energy: what the replica draws beyond what its device draws anyhow;
- latency, cost: regret against the deployment's best option, scaled so that it outweighs energy;
- what leaves the incumbents must beat them by `HYSTERESIS_SHARE`, and every new replica pays its change: loading,
  draining its predecessor, and the partition that meanwhile serves nobody, spread over `PAYBACK_S`.

Of options that take the same room, those that another beats in everything are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from services.orchestrator.core.facts.fleet import PowerSetting, cores_of
from services.orchestrator.core.facts.wish import Deployment, Objective
from services.orchestrator.core.planning.ground import Base, base_of
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
# Energy decides between options of equal latency or price.
_ENERGY_TIE: Final = 1e-3
# Options of one deployment for one kind of partition at one power setting; beyond it the dearest are left out.
MOST_ALIKE: Final = 4

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


def items_of(deployment: Deployment, options: tuple[Option, ...], bases: frozenset[Base]) -> tuple[Item, ...]:
    """Items worth choosing from.

    Args:
        bases: of the replicas that the deployment has and may keep.
    """
    if not options:
        return ()
    unit = _unit_mw(deployment, options)
    rooms: dict[tuple[object, ...], list[_Score]] = {}
    for option in options:
        rooms.setdefault(_room_of(option), []).append(_score(deployment, option, bases, unit))
    return tuple(_item(deployment, score) for scores in rooms.values() for score in _undominated(scores))


class _Score(NamedTuple):
    """An option with what it is ranked by.

    Attributes:
        told_mw, told_new_mw: cost without and with its change, as far as profiles tell it.
        held: capacity without what rounding makes of it.
    """

    option: Option
    capacity: float
    cost_mw: float
    change_mw: float
    incumbent: bool
    told_mw: float
    told_new_mw: float
    held: float


def _room_of(option: Option) -> tuple[object, ...]:
    """Device class, kind of partition, power setting."""
    _, device_class, kind, _, power = option.point.key
    return (device_class, kind, power)


def _unit_mw(deployment: Deployment, options: tuple[Option, ...]) -> float:
    """What the objective's own unit is worth."""
    if deployment.objective is Objective.ENERGY:
        return 1.0
    devices = [option.point.device for option in options]
    stake = max(max(d.idle_power_mw for d in devices), min(option.shown.power_mw for option in options), 1.0)
    return REGRET_WEIGHT * stake / max(min(option.cost for option in options), 1e-9)


def _score(deployment: Deployment, option: Option, bases: frozenset[Base], unit: float) -> _Score:
    rate, incumbent = deployment.demand.requests_per_s, option.base in bases
    capacity = min(option.capacity / rate * (1 + 1e-9), 1.0) if rate > 0.0 else 1.0
    cost = option.cost * unit / option.replicas
    if deployment.objective is not Objective.ENERGY:
        cost += option.shown.power_mw / option.replicas * _ENERGY_TIE
    elif option.point.energy_source[0] in (FigureSource.UNAVAILABLE, FigureSource.UNSPECIFIED):
        cost += UNKNOWN_ENERGY_MW
    if bases and not incumbent:
        cost *= 1.0 + HYSTERESIS_SHARE
    change, told = change_mw(option) if bases else 0.0, _told(cost)
    told_new = _told(cost + change) if change else told
    return _Score(option, capacity, cost, change, incumbent, told, told_new, _held(capacity))


def _item(deployment: Deployment, score: _Score) -> Item:
    option, profile = score.option, score.option.point.profile
    return Item(
        deployment_id=deployment.deployment_id,
        option=option,
        base=option.base,
        kind=profile.partition_kind,
        units=cores_of(profile.partition_kind) or 1,
        memory_bytes=option.point.memory_bytes,
        capacity=score.capacity,
        cost_mw=score.cost_mw,
        change_mw=score.change_mw,
        power=profile.power,
        incumbent=score.incumbent,
    )


def change_mw(option: Option) -> float:
    """Power that one new replica amounts to when its change is spread over `PAYBACK_S`.

    Loading takes `load_s` at the power of work; for that time and for one request of draining the room is held twice.
    """
    point, load_s = option.point, option.point.profile.load_s
    return (load_s * point.at_work_mw + (load_s + option.service_s) * point.idle_mw) / PAYBACK_S


def _undominated(scores: list[_Score]) -> list[_Score]:
    ranked = sorted((_rank(score), number, score) for number, score in enumerate(scores))
    kept, left = list[_Score](), MOST_ALIKE
    for _, _, score in ranked:
        if score.incumbent:
            kept.append(score)
        elif left and not any(_beats(other, score) for other in kept):
            kept.append(score)
            left -= 1
    # Where room is scarce the dearest may be the only one that does.
    strongest = min(ranked, key=_strength)[2]
    return kept if any(score is strongest for score in kept) else [*kept, strongest]


def _beats(other: _Score, score: _Score) -> bool:
    """Whether another is no worse in anything."""
    return (
        other.held >= score.held
        and other.option.point.memory_bytes <= score.option.point.memory_bytes
        and other.told_mw <= score.told_mw
        and other.told_new_mw <= score.told_new_mw
    )


_Rank = tuple[object, ...]


def _rank(score: _Score) -> _Rank:
    """The dearest last; of equal costs the larger batch limit: it costs nothing until used, and then shares."""
    per_request, option = _told(score.cost_mw / max(score.capacity, 1e-9)), score.option
    return (per_request, -option.point.batch_limit, option.service_s, option.point.variant.name, option.key)


def _strength(ranked: tuple[_Rank, int, _Score]) -> tuple[object, ...]:
    rank, _, score = ranked
    return (-score.held, score.told_mw, score.option.point.memory_bytes, rank)


def _told(cost_mw: float) -> float:
    """A cost as far as profiles tell it: a difference in its fourth digit is that of rounding in interpolation."""
    return float(f"{cost_mw:.3g}")


def _held(capacity: float) -> float:
    """A capacity without what rounding makes of it, by which no demand needs another replica."""
    return float(f"{capacity:.9g}")
