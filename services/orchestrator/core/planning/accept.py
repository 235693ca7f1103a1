"""Which wishes are met together: all of them when they fit, else those that run already first, then older ones.

The longest run of wishes in that order that fits is found by doubling steps, the one after it is left out, and so on:
the number of programs solved grows with the number of wishes left out, not with all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.facts.fleet import Budget
from services.orchestrator.core.planning.choice import Mix, choose
from services.orchestrator.core.planning.demands import Wanted
from services.orchestrator.core.planning.ground import Ground
from services.orchestrator.core.planning.layout import Layout, Misfit, lay_out
from services.orchestrator.core.planning.parcel import Rules
from services.orchestrator.core.planning.scores import Item

# Tries to lay out a choice whose sums fit; each pins the deployments that found no room to what they have.
MOST_LAYOUTS_TRIED: Final = 4


# Groups of like devices up to which a program is a matter of milliseconds.
MOST_GROUPS_OF_SMALL: Final = 8
# Starting replicas anew must save this share of what the deployments concerned cost.
WORTH_SHARE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Accepted:
    """Wishes met together, the choice and its layout."""

    deployments: frozenset[str]
    mix: Mix
    layout: Layout


class Desk:
    """Answers whether wishes fit together on a ground; remembers nothing but its input.

    Args:
        ground: the fleet.
        all_names: every deployment that is wished for.
        trust: level of each deployment.
        budgets: limits of power.
        consolidation: whether devices may sleep.
    """

    def __init__(
        self,
        ground: Ground,
        all_names: tuple[str, ...],
        trust: dict[str, str],
        budgets: tuple[Budget, ...],
        *,
        consolidation: bool,
    ) -> None:
        self._ground, self._names, self._budgets = ground, all_names, budgets
        self._trust = trust if len(set(trust.values())) > 1 else {}
        self._consolidation = consolidation

    @property
    def is_small(self) -> bool:
        """Whether many programs can be solved in the time of one plan."""
        return len(self._ground.groups) <= MOST_GROUPS_OF_SMALL

    def fit(self, wanted: tuple[Wanted, ...], *, budgets: bool = True) -> Accepted | None:
        """All of these wishes together, everybody else keeping exactly what is there; None when they do not fit."""
        names = frozenset(one.deployment.deployment_id for one in wanted)
        rules = self._rules(names)
        pinned: frozenset[str] = frozenset()
        for _ in range(MOST_LAYOUTS_TRIED):
            trial = tuple(self._pinned(one) if one.deployment.deployment_id in pinned else one for one in wanted)
            mix = choose(self._ground.groups, trial, rules, self._budgets if budgets else ())
            if mix is None:
                return None
            layout = lay_out(mix, rules)
            if isinstance(layout, Layout):
                return Accepted(names, mix, layout)
            if layout.deployments <= pinned:
                return None
            pinned |= layout.deployments
        return None

    def accept(self, wanted: tuple[Wanted, ...]) -> Accepted:
        """As many wishes as fit, in their order of rank."""
        able = tuple(one for one in wanted if one.items)
        if found := self.fit(able):
            stays = self._staying(able) if found.mix.started() else None
            return stays if stays is not None and not _is_worth_it(stays.mix, found.mix) else found
        ranked = sorted(able, key=lambda one: one.deployment.deployment_id not in self._ground.incumbents)
        taken: tuple[Wanted, ...] = ()
        best = self._nothing()
        position, step = 0, 1
        while position < len(ranked):
            more = tuple(ranked[position : position + step])
            if found := self.fit((*taken, *more)):
                taken, best = (*taken, *more), found
                position, step = position + len(more), step * 2
            elif len(more) > 1:
                step = len(more) // 2
            else:
                position, step = position + 1, 1
        return best

    def _staying(self, able: tuple[Wanted, ...]) -> Accepted | None:
        """All wishes with nothing started anew, None when that does not do."""
        kept = tuple(replace(one, items=tuple(item for item in one.items if item.incumbent)) for one in able)
        if not all(one.items for one in kept):
            return None
        names = frozenset(one.deployment.deployment_id for one in kept)
        rules = replace(self._rules(names), starts=False)
        mix = choose(self._ground.groups, kept, rules, ())
        layout = lay_out(mix, rules) if mix is not None else None
        return Accepted(names, mix, layout) if mix is not None and isinstance(layout, Layout) else None

    def _nothing(self) -> Accepted:
        rules = self._rules(frozenset())
        mix = choose(self._ground.groups, (), rules, ())
        assert mix is not None
        layout = lay_out(mix, rules)
        assert not isinstance(layout, Misfit)
        return Accepted(frozenset(), mix, layout)

    def _rules(self, names: frozenset[str]) -> Rules:
        return Rules(
            trust=self._trust,
            movers=frozenset(self._ground.incumbents),
            stuck=frozenset(name for name in self._names if name not in names),
            consolidation=self._consolidation,
        )

    def _pinned(self, one: Wanted) -> Wanted:
        """A wish with nothing to choose from but what it runs, if it runs something."""
        items: tuple[Item, ...] = tuple(item for item in one.items if item.incumbent)
        return replace(one, items=items or one.items)


def _is_worth_it(stays: Mix, found: Mix) -> bool:
    """Whether a choice saves enough to start replicas for it."""
    started = found.started()
    if not started:
        return True
    concerned = sum(
        item.cost_mw * count for share in stays.shares for item, count in share.placed if item.deployment_id in started
    )
    return stays.cost_mw - found.cost_mw > WORTH_SHARE * concerned
