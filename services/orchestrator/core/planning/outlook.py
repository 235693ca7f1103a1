"""What a large program looks like from afar: a cost that no plan is below, and the options worth a column.

Made of the folded groups (see `fold`), whose program is small and cheaper than any plan.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.facts.fleet import Budget
from services.orchestrator.core.planning.demands import Wanted, add_demands
from services.orchestrator.core.planning.fold import add_folds, folds_of
from services.orchestrator.core.planning.ground import Group
from services.orchestrator.core.planning.parcel import MW_PER_UNIT, Rules
from services.orchestrator.core.planning.pricing import FEW_WAYS, priced_ways
from services.orchestrator.core.planning.scores import Item
from services.orchestrator.core.planning.solver import Program

# Columns from which on options of still fewer ways are worth one: with many groups there is much choice all the same.
MANY_COLUMNS: Final = 40_000
_FEWEST_WAYS: Final = 4


@dataclass(frozen=True, slots=True)
class Outlook:
    """From afar.

    Attributes:
        worth: options near the cheapest; none when the prices of room do not tell.
        bound_mw: no plan costs less.
    """

    worth: frozenset[Item]
    bound_mw: float

    def menu_of(self, one: Wanted) -> Wanted:
        """A wish with the options worth a column, and those of what runs."""
        return replace(one, items=tuple(item for item in one.items if item in self.worth or item.incumbent))


def outlook_of(
    groups: tuple[Group, ...], wanted: tuple[Wanted, ...], rules: Rules, budgets: tuple[Budget, ...]
) -> Outlook | None:
    """The outlook of a program; None when not even the folded groups have room for all wishes."""
    program, items = Program(), defaultdict[str, list[Item]](list)
    for one in wanted:
        for item in one.items:
            items[item.base[1]].append(item)
    parcels = add_folds(program, folds_of(groups, rules), items, rules)
    covers = add_demands(program, parcels, wanted, rules, budgets)
    relaxed = program.relaxed()
    if relaxed is None:
        return None
    columns = sum(len(items.get(group.likeness.device_class, ())) for group in groups)
    keep = FEW_WAYS if columns <= MANY_COLUMNS else _FEWEST_WAYS
    priced = priced_ways(program, parcels, wanted, covers, relaxed.prices, keep)
    if priced is None:
        return Outlook(frozenset(), 0.0)
    worth = {offered[number] for offered, found in priced.ways for way in found for number, _ in way.counts}
    return Outlook(frozenset(worth), priced.bound * MW_PER_UNIT)
