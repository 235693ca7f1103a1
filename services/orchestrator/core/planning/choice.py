"""Chooses how many replicas of which options stand on which groups of devices: one mixed integer program for all.

Whole numbers of alike things, so a thousand equal nodes cost no more than one. Wishes must be met entirely; which of
them take part is the caller's business (`accept`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from services.orchestrator.core.facts.fleet import Budget
from services.orchestrator.core.planning.demands import Wanted, add_demands
from services.orchestrator.core.planning.ground import Group, Tenant
from services.orchestrator.core.planning.outlook import Outlook
from services.orchestrator.core.planning.parcel import MW_PER_UNIT, Opening, Parcel, Rules, Stay, add_parcel
from services.orchestrator.core.planning.pricing import FEW_WAYS, WAYS_KEPT, Priced, priced_ways, solve_by_ways
from services.orchestrator.core.planning.scores import Item
from services.orchestrator.core.planning.solver import Answer, Program, Relaxed

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
    kept: tuple[tuple[Stay, int], ...]


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
            for (tenant, _), count in share.kept:
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
    return _placing(groups, wanted) > MOST_WHOLE


def kept_gap(groups: tuple[Group, ...], wanted: tuple[Wanted, ...], outlook: Outlook) -> float:
    """What runs is left as it is within this share of the bound: that which a search for better would end at."""
    menus = tuple(outlook.menu_of(one) for one in wanted)
    return MOST_GAP if _placing(groups, menus) > MOST_BY_WAYS else ENOUGH_GAP


def _placing(groups: tuple[Group, ...], wanted: tuple[Wanted, ...]) -> int:
    """Columns of what may be placed."""
    items = _by_class(one.items for one in wanted)
    return sum(len(items.get(group.likeness.device_class, ())) for group in groups)


def choose(
    groups: tuple[Group, ...],
    wanted: tuple[Wanted, ...],
    rules: Rules,
    budgets: tuple[Budget, ...],
    outlook: Outlook | None = None,
    *,
    briefly: bool = False,
) -> Mix | None:
    """The choice of least cost, None when the wishes do not fit together.

    Args:
        outlook: of a large program for these wishes, or for the same ones with more options.
        briefly: whether a large program is searched near its relaxed answer first (docs/adr/0121).
    """
    if any(not one.items for one in wanted):
        return None
    if outlook is not None and outlook.worth:
        menus = tuple(outlook.menu_of(one) for one in wanted)
        if mix := Case(groups, menus, rules, budgets).mix(outlook, briefly=briefly):
            return mix
    return Case(groups, wanted, rules, budgets).mix()


def gap_of(cost_mw: float, bound_mw: float) -> float:
    """How far a cost is above a bound, as a share of it."""
    return max(cost_mw - bound_mw, 0.0) / max(abs(cost_mw), 1e-9)


class Case:
    """A program written down: what it costs at least, and its answer."""

    def __init__(
        self, groups: tuple[Group, ...], wanted: tuple[Wanted, ...], rules: Rules, budgets: tuple[Budget, ...]
    ) -> None:
        items = _by_class(one.items for one in wanted)
        self._program, self._wanted = Program(), wanted
        self._parcels = [add_parcel(self._program, g, items.get(g.likeness.device_class, ()), rules) for g in groups]
        self._covers = add_demands(self._program, self._parcels, wanted, rules, budgets)

    @cached_property
    def _relaxed(self) -> Relaxed | None:
        return self._program.relaxed()

    @property
    def least_mw(self) -> float:
        """No choice costs less; infinite when there is none."""
        return self._relaxed.cost * MW_PER_UNIT if self._relaxed else math.inf

    def mix(self, outlook: Outlook | None = None, *, briefly: bool = False, most_tries: int = 2) -> Mix | None:
        """The choice of least cost, None when the wishes do not fit together.

        Args:
            outlook: of these wishes, or of the same ones with more options; the gap is told against its bound.
            briefly: whether a large program is searched near its relaxed answer first.
            most_tries: answers of a large program after which no better one is looked for.
        """
        bound_mw = outlook.bound_mw if outlook is not None and outlook.worth else None
        answer = self._answer(bound_mw, most_tries, briefly=briefly)
        if answer is None:
            return None
        values = [round(value) for value in answer.values]
        shares = tuple(_share(parcel, values) for parcel in self._parcels)
        cost_mw = answer.cost * MW_PER_UNIT
        gap = answer.gap if bound_mw is None else gap_of(cost_mw, bound_mw)
        return Mix(shares, cost_mw, gap, answer.timed_out)

    def _answer(self, bound_mw: float | None, most_tries: int, *, briefly: bool) -> Answer | None:
        """The answer; a large program settles for one within `MOST_GAP`."""
        program = self._program
        if len(program.costs) <= MOST_DIRECT:
            return program.solve()
        if self._relaxed is None:
            return None
        if bound_mw is None:
            return self._by_ways() or program.solve()
        bound, large = bound_mw / MW_PER_UNIT, len(program.costs) > MOST_BY_WAYS
        enough, good = bound / (1.0 - ENOUGH_GAP), bound / (1.0 - MOST_GAP)
        tries: list[Callable[[], Answer | None]] = [
            lambda: self._by_ways(FEW_WAYS, enough, good if briefly else -math.inf),
            lambda: program.solve(enough=enough, settle=good if large else -math.inf),
        ]
        found: list[Answer] = []
        for solve in reversed(tries) if large else tries:
            if answer := solve():
                found.append(answer)
                if answer.cost <= good or len(found) == most_tries:
                    break
        return min(found, key=lambda answer: answer.cost, default=None)

    def _by_ways(self, keep: int = WAYS_KEPT, enough: float | None = None, good: float = -math.inf) -> Answer | None:
        priced = self._priced(keep)
        return solve_by_ways(self._program, priced, self._covers, enough, good) if priced else None

    def _priced(self, keep: int) -> Priced | None:
        if self._relaxed is None:
            return None
        return priced_ways(self._program, self._parcels, self._wanted, self._covers, self._relaxed.prices, keep)


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
        tuple((stay, values[column]) for stay, column in parcel.kept.items() if values[column]),
    )
