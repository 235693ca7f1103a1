"""Chooses how many replicas of which options stand on which groups of devices: one mixed integer program for all.

Whole numbers of alike things, so a thousand equal nodes cost no more than one. Wishes must be met entirely; which of
them take part is the caller's business (`accept`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.facts.fleet import Budget
from services.orchestrator.core.planning.demands import Wanted, add_demands
from services.orchestrator.core.planning.ground import Group, Tenant
from services.orchestrator.core.planning.outlook import Outlook
from services.orchestrator.core.planning.parcel import MW_PER_UNIT, Opening, Parcel, Rules, add_parcel
from services.orchestrator.core.planning.pricing import FEW_WAYS, solve_by_ways
from services.orchestrator.core.planning.scores import Item
from services.orchestrator.core.planning.solver import Answer, Program

# Programs of up to so many columns are solved as they are; larger ones by ways (docs/adr/0035).
MOST_DIRECT: Final = 120
# Programs of up to so many columns are written down whole; larger ones after folding (docs/adr/0038).
MOST_WHOLE: Final = 4_000
# Larger programs are solved as they are first: with many replicas for each wish rounding costs little.
MOST_BY_WAYS: Final = 10_000
# The search of a large program ends within this share of the bound, and goes on another way beyond the second one: the
# gap asked for (docs/adr/0058).
ENOUGH_GAP: Final = 0.01
MOST_GAP: Final = 0.02


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
    """A choice for all groups.

    Attributes:
        gap: how far its cost may be from the least, as a share.
        timed_out: the solver's safety net ended the search, see `solver`.
    """

    shares: tuple[Share, ...]
    cost_mw: float
    gap: float
    timed_out: bool = False

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


def is_large(groups: tuple[Group, ...], wanted: tuple[Wanted, ...]) -> bool:
    """Whether options have to be picked before the program is written down."""
    items = _by_class(one.items for one in wanted)
    return sum(len(items.get(group.likeness.device_class, ())) for group in groups) > MOST_WHOLE


def choose(
    groups: tuple[Group, ...],
    wanted: tuple[Wanted, ...],
    rules: Rules,
    budgets: tuple[Budget, ...],
    outlook: Outlook | None = None,
) -> Mix | None:
    """The choice of least cost, None when the wishes do not fit together.

    Args:
        outlook: of a large program for these wishes, or for the same ones with more options.
    """
    if any(not one.items for one in wanted):
        return None
    if outlook is not None and outlook.worth:
        menus = tuple(outlook.menu_of(one) for one in wanted) if rules.starts else wanted
        if mix := _chosen(groups, menus, rules, budgets, outlook.bound_mw):
            return replace(mix, gap=gap_of(mix.cost_mw, outlook.bound_mw))
    return _chosen(groups, wanted, rules, budgets)


def gap_of(cost_mw: float, bound_mw: float) -> float:
    """How far a cost is above a bound, as a share of it."""
    return max(cost_mw - bound_mw, 0.0) / max(abs(cost_mw), 1e-9)


def _chosen(
    groups: tuple[Group, ...],
    wanted: tuple[Wanted, ...],
    rules: Rules,
    budgets: tuple[Budget, ...],
    bound_mw: float | None = None,
) -> Mix | None:
    program, items = Program(), _by_class(one.items for one in wanted)
    parcels = [add_parcel(program, g, items.get(g.likeness.device_class, ()), rules) for g in groups]
    covers = add_demands(program, parcels, wanted, rules, budgets)
    answer = _answer(program, parcels, wanted, covers, bound_mw)
    if answer is None:
        return None
    values = [round(value) for value in answer.values]
    shares = tuple(_share(parcel, values) for parcel in parcels)
    return Mix(shares, answer.cost * MW_PER_UNIT, answer.gap, answer.timed_out)


def _answer(
    program: Program,
    parcels: list[Parcel],
    wanted: tuple[Wanted, ...],
    covers: frozenset[int],
    bound_mw: float | None,
) -> Answer | None:
    if len(program.costs) <= MOST_DIRECT:
        return program.solve()
    if bound_mw is None:
        return solve_by_ways(program, parcels, wanted, covers) or program.solve()
    enough = bound_mw / MW_PER_UNIT / (1.0 - ENOUGH_GAP)
    tries: list[Callable[[], Answer | None]] = [
        lambda: solve_by_ways(program, parcels, wanted, covers, FEW_WAYS, enough),
        lambda: program.solve(enough=enough),
    ]
    found: list[Answer] = []
    for solve in tries if len(program.costs) <= MOST_BY_WAYS else reversed(tries):
        if answer := solve():
            found.append(answer)
            if gap_of(answer.cost * MW_PER_UNIT, bound_mw) <= MOST_GAP:
                break
    return min(found, key=lambda answer: answer.cost, default=None)


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
