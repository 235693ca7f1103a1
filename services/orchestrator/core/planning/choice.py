"""Chooses how many replicas of which options stand on which groups of devices: one mixed integer program for all.

Whole numbers of alike things, so a thousand equal nodes cost no more than one. Wishes must be met entirely; which of
them take part is the caller's business (`accept`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.facts.fleet import Budget
from services.orchestrator.core.planning.demands import Wanted, add_demands
from services.orchestrator.core.planning.fold import add_folds, folds_of
from services.orchestrator.core.planning.ground import Group, Tenant
from services.orchestrator.core.planning.parcel import MW_PER_UNIT, Opening, Parcel, Rules, add_parcel
from services.orchestrator.core.planning.pricing import priced_ways, solve_by_ways
from services.orchestrator.core.planning.scores import Item
from services.orchestrator.core.planning.solver import Program

# Programs of up to so many columns are solved as they are; larger ones by ways (docs/adr/0035).
MOST_DIRECT: Final = 120
# Programs of up to so many columns are written down whole; larger ones after folding (docs/adr/0038).
MOST_WHOLE: Final = 4_000


@dataclass(frozen=True, slots=True)
class Share:
    """What is chosen for one group."""

    group: Group
    fixed: tuple[Tenant, ...]
    opened: tuple[tuple[Opening, int], ...]
    placed: tuple[tuple[Item, int], ...]
    kept: tuple[tuple[Tenant, int], ...]


@dataclass(frozen=True, slots=True)
class Mix:
    """A choice for all groups; `gap` is how far its cost may be from the least, as a share."""

    shares: tuple[Share, ...]
    cost_mw: float
    gap: float

    def started(self) -> frozenset[str]:
        """Deployments of which replicas start anew."""
        found: set[str] = set()
        for share in self.shares:
            balance: dict[tuple[object, ...], int] = defaultdict(int)
            for item, count in share.placed:
                balance[item.deployment_id, item.base] += count
            for tenant, count in share.kept:
                balance[tenant.deployment_id, tenant.base] -= count
            found |= {str(key[0]) for key, count in balance.items() if count > 0}
        return frozenset(found)

    def of(self, deployment_id: str) -> tuple[tuple[Item, int], ...]:
        """Replicas of a deployment by item, the most numerous first."""
        counts: dict[Item, int] = defaultdict(int)
        for share in self.shares:
            for item, count in share.placed:
                if item.deployment_id == deployment_id:
                    counts[item] += count
        return tuple(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0].option.key)))


def choose(
    groups: tuple[Group, ...], wanted: tuple[Wanted, ...], rules: Rules, budgets: tuple[Budget, ...]
) -> Mix | None:
    """The choice of least cost, None when the wishes do not fit together."""
    if any(not one.items for one in wanted):
        return None
    items = _by_class(one.items for one in wanted)
    if rules.starts and sum(len(items.get(g.likeness.device_class, ())) for g in groups) > MOST_WHOLE:
        worth = _worth_a_column(groups, wanted, rules, budgets)
        if worth is None:
            return None
        if worth.menus and (mix := _chosen(groups, worth.menus, rules, budgets)):
            return replace(mix, gap=max(mix.cost_mw - worth.bound_mw, 0.0) / max(abs(mix.cost_mw), 1e-9))
    return _chosen(groups, wanted, rules, budgets)


def _chosen(
    groups: tuple[Group, ...], wanted: tuple[Wanted, ...], rules: Rules, budgets: tuple[Budget, ...]
) -> Mix | None:
    program, items = Program(), _by_class(one.items for one in wanted)
    parcels = [add_parcel(program, g, items.get(g.likeness.device_class, ()), rules) for g in groups]
    covers = add_demands(program, parcels, wanted, rules, budgets)
    if len(program.costs) <= MOST_DIRECT:
        answer = program.solve()
    else:
        answer = solve_by_ways(program, parcels, wanted, covers) or program.solve()
    if answer is None:
        return None
    values = [round(value) for value in answer.values]
    return Mix(tuple(_share(parcel, values) for parcel in parcels), answer.cost * MW_PER_UNIT, answer.gap)


@dataclass(frozen=True, slots=True)
class _Worth:
    """Wishes with the options near the cheapest, and a cost that no plan is below; no menus when that is not known."""

    menus: tuple[Wanted, ...]
    bound_mw: float


def _worth_a_column(
    groups: tuple[Group, ...], wanted: tuple[Wanted, ...], rules: Rules, budgets: tuple[Budget, ...]
) -> _Worth | None:
    """Which options of each wish to look at in every group; None when not even the folded groups have room."""
    program, items = Program(), _by_class(one.items for one in wanted)
    parcels = add_folds(program, folds_of(groups, rules), items, rules)
    covers = add_demands(program, parcels, wanted, rules, budgets)
    prices = program.prices()
    if prices is None:
        return None
    priced = priced_ways(program, parcels, wanted, covers, prices)
    if priced is None:
        return _Worth((), 0.0)
    menus = []
    for one, (offered, found) in zip(wanted, priced.ways, strict=True):
        used = {offered[number] for way in found for number, _ in way.counts}
        menus.append(replace(one, items=tuple(i for i in one.items if i in used or i.incumbent)))
    return _Worth(tuple(menus), priced.bound * MW_PER_UNIT)


def _by_class(menus: Iterable[tuple[Item, ...]]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = defaultdict(list)
    for items in menus:
        for item in items:
            found[item.base[1]].append(item)
    return found


def _share(parcel: Parcel, values: list[int]) -> Share:
    return Share(
        parcel.group,
        parcel.fixed,
        tuple((opening, values[column]) for opening, column in parcel.opened.items() if values[column]),
        tuple((item, values[column]) for item, column in parcel.placed.items() if values[column]),
        tuple((tenant, values[column]) for tenant, column in parcel.kept.items() if values[column]),
    )
