"""The part of the program that speaks of one group of devices: how many are opened, how cut, what stands on them.

Σ units placed ≤ units opened        per power setting and trust level
kept ≤ placed, kept ≤ there           what runs and stays
new of movers ≤ free + own leaving    nobody who runs already waits for others, so nobody waits in a circle
memory of what is new ≤ what is free  old and new stand side by side for a while
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from services.orchestrator.core.facts.fleet import DEFAULT_POWER, PowerSetting
from services.orchestrator.core.planning.cuts import Cut, board_cuts, core_cuts
from services.orchestrator.core.planning.ground import Base, Group, Tenant
from services.orchestrator.core.planning.offer import USABLE_MEMORY_SHARE
from services.orchestrator.core.planning.scores import PAYBACK_S, Item
from services.orchestrator.core.planning.solver import Program

# Costs of the program are in watts, which keeps its figures near 1.
MW_PER_UNIT: Final = 1000.0
# Assumed: making a slice takes about as long as NVIDIA's own tools report (seconds); it serves nobody meanwhile.
REPARTITION_S: Final = 10.0
# Assumed: a clock or a cap is in force within about a second.
POWER_CHANGE_S: Final = 1.0
# Keeping a replica that is not ready, or was on its way out, is worth so much less than one that serves.
_DOUBT: Final = 0.02
# Keeping what runs is worth this at least, however little its change costs.
_LEAST_CHANGE_MW: Final = 1.0


@dataclass(frozen=True, slots=True)
class Opening:
    """Devices opened in one way; `cut` is None for CPUs whose core sets divide each other."""

    power: PowerSetting
    trust: str
    cut: Cut | None


# A replica that stays where it is, and the setting that its device has then; None is any.
Stay = tuple[Tenant, PowerSetting | None]


@dataclass(slots=True)
class Parcel:
    """A group with its columns: numbers of devices by opening, of placed replicas by item and trust, of kept ones."""

    group: Group
    fixed: tuple[Tenant, ...]
    opened: dict[Opening, int] = field(default_factory=dict)
    placed: dict[Item, int] = field(default_factory=dict)
    kept: dict[Stay, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all parcels.

    Attributes:
        trust: level of each deployment; empty when all have the same.
        movers: deployments that have replicas already.
        stuck: deployments that keep exactly what they have.
        starts: whether new replicas may be started at all.
        apart: whether what stays and what moves is told by the setting of its device, where something starts. That
            takes longer, and is needed only where a choice without it has no room.
    """

    trust: dict[str, str]
    movers: frozenset[str]
    stuck: frozenset[str]
    consolidation: bool
    starts: bool = True
    apart: bool = False


def add_parcel(program: Program, group: Group, items: Iterable[Item], rules: Rules) -> Parcel:
    """Adds a group's columns and rows to a program."""
    fixed = tuple(t for t in group.likeness.content if t.deployment_id in rules.stuck and t.keepable and t.planned)
    parcel = Parcel(group, fixed)
    offered = _possible(group, items, rules, fixed)
    if not offered:
        return parcel
    _open(program, parcel, offered, rules)
    _keep(program, parcel, offered, rules)
    _fill(program, parcel, rules)
    _move(program, parcel, rules)
    _hold(program, parcel)
    _cut(program, parcel)
    return parcel


def add_folded(
    program: Program, group: Group, standing: dict[Tenant, int], items: Iterable[Item], rules: Rules
) -> Parcel:
    """Adds the columns and rows of groups folded into one, on which nothing stands but could stay (see `fold`)."""
    parcel = Parcel(group, ())
    offered = _possible(group, items, rules, ())
    if not offered:
        return parcel
    _open(program, parcel, offered, rules)
    by_base: dict[tuple[object, ...], list[Item]] = defaultdict(list)
    for item in offered:
        by_base[item.deployment_id, item.base].append(item)
    kept: dict[tuple[object, ...], list[tuple[int, float]]] = defaultdict(list)
    for tenant, count in standing.items():
        if alike := by_base.get((tenant.deployment_id, tenant.base)):
            column = parcel.kept[tenant, None] = program.column(-_worth(tenant, alike), float(count))
            kept[tenant.deployment_id, tenant.base].append((column, 1.0))
    for key, columns in kept.items():
        program.row([*columns, *((parcel.placed[item], -1.0) for item in by_base[key])], most=0.0)
    _fill(program, parcel, rules)
    _hold(program, parcel)
    return parcel


def _worth(tenant: Tenant, items: list[Item]) -> float:
    """What it saves to keep a tenant that counts as one of the items."""
    doubt = _DOUBT * ((not tenant.ready) + (not tenant.planned))
    return max(_change(item) for item in items) * (1.0 - doubt)


def _possible(group: Group, items: Iterable[Item], rules: Rules, fixed: tuple[Tenant, ...]) -> list[Item]:
    """The items that a group could take at all."""
    like = group.likeness
    settings = {DEFAULT_POWER, *like.power_settings}
    able = [item for item in items if item.base[1] == like.device_class and item.power in settings]
    if not (like.takes_work and rules.starts):
        here = {(tenant.deployment_id, tenant.base) for tenant in like.content}
        return [item for item in able if (item.deployment_id, item.base) in here]
    able = [item for item in able if not item.selector or group.matches(item.selector)]
    if rules.trust:
        able = [item for item in able if _trusted(group, rules.trust.get(item.deployment_id, ""), rules)]
    if group.board is not None:
        kinds = {seat.kind for seat in group.board.seats}
        return [item for item in able if item.kind in kinds]
    own = {tenant.deployment_id for tenant in like.content}
    taken, pinned = sum(t.units for t in like.content), sum(t.units for t in fixed)
    return [
        item
        for item in able
        if item.units
        <= like.cores - (taken if item.deployment_id in rules.movers and item.deployment_id not in own else pinned)
    ]


def _trusted(group: Group, level: str, rules: Rules) -> bool:
    return all(rules.trust.get(tenant.deployment_id, level) == level for tenant in group.likeness.content)


def _open(program: Program, parcel: Parcel, offered: list[Item], rules: Rules) -> None:
    """Columns of openings, and their row: no more than there are, all of them where something must stay."""
    group, like = parcel.group, parcel.group.likeness
    for item in offered:
        parcel.placed[item] = program.column(item.cost_mw / MW_PER_UNIT + _change(item))
    cuts: tuple[Cut | None, ...]
    if group.board is not None:
        cuts = board_cuts(group, frozenset(item.kind for item in offered))
    else:
        left = like.cores - sum(tenant.units for tenant in parcel.fixed)
        cuts = core_cuts(left, tuple(sorted({item.units for item in offered}))) or (None,)
    ways = sorted(
        {(rules.trust.get(i.deployment_id, ""), i.power.order, i.power) for i in offered}, key=lambda w: w[:2]
    )
    for trust, _, power in ways:
        for cut in cuts:
            cost = _opening_mw(parcel, power, consolidation=rules.consolidation)
            parcel.opened[Opening(power, trust, cut)] = program.column(cost / MW_PER_UNIT, group.size)
    least = float(group.size) if parcel.fixed else 0.0
    program.row([(column, 1.0) for column in parcel.opened.values()], least=least, most=float(group.size))


def _opening_mw(parcel: Parcel, power: PowerSetting, *, consolidation: bool) -> float:
    like = parcel.group.likeness
    cost = 0.0
    if consolidation and not parcel.fixed:
        cost += like.idle_power_mw - like.least_power_mw
        if like.asleep:
            cost += like.wake_s * like.idle_power_mw / PAYBACK_S
    if power != like.setting:
        cost += POWER_CHANGE_S * like.idle_power_mw / PAYBACK_S
    return cost


def _change(item: Item) -> float:
    return (max(item.change_mw, _LEAST_CHANGE_MW) if item.change_mw else 0.0) / MW_PER_UNIT


def _keep(program: Program, parcel: Parcel, offered: list[Item], rules: Rules) -> None:
    """Columns of what stays: each tenant at most once on each device opened for it, and only as one that is placed."""
    starts = parcel.group.likeness.takes_work and rules.starts
    apart = rules.apart or not starts
    by_base, by_place = defaultdict[object, list[Item]](list), defaultdict[_Place, list[Item]](list)
    for item in offered:
        by_base[item.deployment_id, item.base].append(item)
        by_place[item.deployment_id, item.base, item.power if apart else None].append(item)
    opened = _opened(parcel, apart=apart)
    standing = Counter(tenant for tenant in parcel.group.likeness.content if tenant.keepable)
    columns: dict[_Place, list[tuple[int, float]]] = defaultdict(list)
    for place in by_place:
        name, base, power = place
        for tenant, count in standing.items():
            if (tenant.deployment_id, tenant.base) != (name, base):
                continue
            column = program.column(-_worth(tenant, by_base[name, base]), float(count * parcel.group.size))
            parcel.kept[tenant, power] = column
            columns[place].append((column, 1.0))
            room = ((c, -float(count)) for _, c in opened[_way(power, rules.trust.get(name, ""), apart=apart)])
            program.row([(column, 1.0), *room], most=0.0)
    for place, kept in columns.items():
        program.row([*kept, *((parcel.placed[item], -1.0) for item in by_place[place])], most=0.0)
    if not starts:
        for place, items in by_place.items():
            new = [(parcel.placed[item], 1.0) for item in items]
            program.row([*new, *((column, -1.0) for column, _ in columns[place])], most=0.0)


_Place = tuple[str, Base, PowerSetting | None]
# Devices opened for one setting and trust level; None is all of them.
_Way = tuple[PowerSetting | None, str] | None


def _way(power: PowerSetting | None, trust: str, *, apart: bool) -> _Way:
    return (power, trust) if apart else None


def _opened(parcel: Parcel, *, apart: bool) -> dict[_Way, list[tuple[Opening, int]]]:
    """Openings with their columns, by way."""
    found: dict[_Way, list[tuple[Opening, int]]] = defaultdict(list)
    for opening, column in parcel.opened.items():
        found[_way(opening.power, opening.trust, apart=apart)].append((opening, column))
    return found


def _fill(program: Program, parcel: Parcel, rules: Rules) -> None:
    """Rows of room: what is placed at a power setting and trust level fits on the devices opened so."""
    ways = sorted({(o.trust, o.power.order, o.power) for o in parcel.opened}, key=lambda way: way[:2])
    fixed = Counter(tenant.base[2] for tenant in parcel.fixed)
    for trust, _, power in ways:
        items = [i for i in parcel.placed if i.power == power and rules.trust.get(i.deployment_id, "") == trust]
        opened = {o: column for o, column in parcel.opened.items() if o.power == power and o.trust == trust}
        if all(opening.cut is not None for opening in opened):
            # Fixed cores are left out of a CPU's cuts already; a board's cuts count them.
            less = fixed if parcel.group.board is not None else Counter[str]()
            for kind in sorted({item.kind for item in items}):
                room = [(column, -float(dict(o.cut or ()).get(kind, 0) - less[kind])) for o, column in opened.items()]
                placed = [(parcel.placed[i], 1.0) for i in items if i.kind == kind]
                program.row([*placed, *room], most=0.0)
            continue
        cores = parcel.group.likeness.cores - sum(tenant.units for tenant in parcel.fixed)
        for size in sorted({item.units for item in items}):
            placed = [(parcel.placed[i], float(i.units // size)) for i in items if i.units >= size]
            program.row([*placed, *((column, -float(cores // size)) for column in opened.values())], most=0.0)


def _move(program: Program, parcel: Parcel, rules: Rules) -> None:
    """Rows of transition: new replicas of movers beyond what they leave themselves take only what nobody holds.

    Told apart, for each power setting and trust level by itself: devices that are opened for others lend no room.
    """
    group, content = parcel.group, parcel.group.likeness.content
    if not content:
        return
    opened = _opened(parcel, apart=rules.apart)
    moving: dict[tuple[_Way, str], dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in parcel.placed:
        if item.deployment_id in rules.movers:
            way = _way(item.power, rules.trust.get(item.deployment_id, ""), apart=rules.apart)
            moving[way, item.kind if group.board is not None else ""][item.deployment_id].append(item)
    for (way, kind), movers in sorted(moving.items(), key=lambda entry: entry[0][1]):
        here = [t for t in content if not kind or t.base[2] == kind]
        beyond: list[tuple[int, float]] = []
        for deployment_id, items in sorted(movers.items()):
            own = sum(t.units for t in here if t.deployment_id == deployment_id)
            column = program.column(0.0, whole=False)
            terms = [(parcel.placed[item], float(item.units)) for item in items]
            program.row([*terms, (column, -1.0), *((c, -float(own)) for _, c in opened[way])], most=0.0)
            beyond.append((column, 1.0))
        held = sum(tenant.units for tenant in here)
        if group.board is None:
            free = float(max(group.likeness.cores - held, 0))
            program.row([*beyond, *((c, -free) for _, c in opened[way])], most=0.0)
        else:
            room = [(c, -float(dict(o.cut or ()).get(kind, 0) - held)) for o, c in opened[way]]
            program.row([*beyond, *room], most=0.0)


def _hold(program: Program, parcel: Parcel) -> None:
    """Row of memory: what is new beside what stands."""
    like = parcel.group.likeness
    usable = like.memory_bytes * USABLE_MEMORY_SHARE
    now = sum(tenant.memory_bytes for tenant in like.content)
    placed = [(c, i.memory_bytes / usable) for i, c in parcel.placed.items() if i.memory_bytes]
    if placed:
        kept = [(c, -t.memory_bytes / usable) for (t, _), c in parcel.kept.items() if t.memory_bytes]
        opened = [(c, -max(1.0 - now / usable, 0.0)) for c in parcel.opened.values()]
        program.row([*placed, *kept, *opened], most=0.0)


def _cut(program: Program, parcel: Parcel) -> None:
    """The price of slices that have to be made."""
    group, like = parcel.group, parcel.group.likeness
    if group.board is None:
        return
    standing = group.board.kinds_of(like.standing)
    cost = REPARTITION_S * like.idle_power_mw / PAYBACK_S / MW_PER_UNIT
    for kind in sorted({item.kind for item in parcel.placed}):
        made = program.column(cost, whole=False)
        here = [(column, 1.0) for item, column in parcel.placed.items() if item.kind == kind]
        program.row([*here, (made, -1.0)], most=float(standing[kind] * group.size))
