"""Groups folded further, as if nothing stood on their devices but could stay: a smaller program that no plan beats.

Groups that differ only in what is on them become one. What stands there may be kept, and takes no room from others; the
way from the old plan to the new one is free. So its cost is a lower bound, and its prices tell which options are
worth a column for every group in the whole program.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.orchestrator.core.facts.fleet import DEFAULT_POWER
from services.orchestrator.core.planning.ground import Group, Likeness, Tenant
from services.orchestrator.core.planning.parcel import Parcel, Rules, add_folded
from services.orchestrator.core.planning.scores import Item
from services.orchestrator.core.planning.solver import Program


@dataclass(frozen=True, slots=True)
class Fold:
    """Groups as one, and all that stands on them."""

    group: Group
    standing: tuple[tuple[Tenant, int], ...]


def folds_of(groups: Iterable[Group], rules: Rules) -> tuple[Fold, ...]:
    """The groups, folded."""
    alike: dict[Likeness, list[Group]] = defaultdict(list)
    for group in groups:
        alike[_bare(group, rules)].append(group)
    return tuple(
        Fold(Group(number, likeness, found[0].board, tuple(s for g in found for s in g.spots)), _standing(found))
        for number, (likeness, found) in enumerate(alike.items())
    )


def add_folds(program: Program, folds: Iterable[Fold], items: dict[str, list[Item]], rules: Rules) -> list[Parcel]:
    """Adds all of them to a program."""
    return [
        add_folded(program, fold.group, dict(fold.standing), items.get(fold.group.likeness.device_class, ()), rules)
        for fold in folds
    ]


def _bare(group: Group, rules: Rules) -> Likeness:
    """The likeness of an empty device in its default state; what others hold on it keeps it awake."""
    like = group.likeness
    held = any(t.deployment_id in rules.stuck and t.keepable and t.planned for t in like.content)
    return replace(
        like,
        content=(),
        occupied=0,
        standing=0,
        asleep=False,
        setting=DEFAULT_POWER,
        takes_work=True,
        least_power_mw=like.idle_power_mw if held else like.least_power_mw,
    )


def _standing(groups: list[Group]) -> tuple[tuple[Tenant, int], ...]:
    found: Counter[Tenant] = Counter()
    for group in groups:
        for tenant in group.likeness.content:
            if tenant.keepable:
                found[tenant] += group.size
    return tuple(found.items())
