"""Which wishes are met together: all of them when they fit, else those that run already first, then older ones.

The longest run of wishes in that order that fits is found by doubling steps, the one after it is left out, and so on:
the number of programs solved grows with the number of wishes left out, not with all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.facts.fleet import Budget
from services.orchestrator.core.planning.budgets import Budgets
from services.orchestrator.core.planning.choice import ENOUGH_GAP, Case, Mix, choose, gap_of, is_large, kept_gap
from services.orchestrator.core.planning.demands import Wanted
from services.orchestrator.core.planning.ground import Base, Ground, base_of
from services.orchestrator.core.planning.layout import Layout, Misfit, lay_out
from services.orchestrator.core.planning.outlook import Outlook, outlook_of
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
        budgets: limits of power, and what running work draws of them.
        consolidation: whether devices may sleep.
    """

    def __init__(
        self,
        ground: Ground,
        all_names: tuple[str, ...],
        trust: dict[str, str],
        budgets: Budgets,
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

    def fit(
        self,
        wanted: tuple[Wanted, ...],
        *,
        budgets: bool = True,
        raised: Budget | None = None,
        stays: frozenset[str] | None = None,
        outlook: Outlook | None = None,
    ) -> Accepted | None:
        """All of these wishes together, everybody else keeping exactly what is there; None when they do not fit.

        Args:
            budgets: whether power is limited.
            raised: a budget in place of the one of its scope.
            stays: others whose power counts; None for all.
            outlook: of these wishes; it is made here when they are many.
        """
        names = _names(wanted)
        rules = self._rules(names)
        limits = self._beside(names, stays, raised) if budgets else ()
        if outlook is None and is_large(self._ground.groups, wanted):
            outlook = outlook_of(self._ground.groups, wanted, rules, limits)
            if outlook is None:
                return None
        pinned: frozenset[str] = frozenset()
        for _ in range(MOST_LAYOUTS_TRIED):
            trial = tuple(self._pinned(one) if one.deployment.deployment_id in pinned else one for one in wanted)
            found = self._laid_out(trial, rules, limits, outlook)
            if not isinstance(found, Misfit):
                return found
            if found.deployments <= pinned:
                return None
            pinned |= found.deployments
        return None

    def _laid_out(
        self, wanted: tuple[Wanted, ...], rules: Rules, budgets: tuple[Budget, ...], outlook: Outlook | None
    ) -> Accepted | Misfit | None:
        """A choice laid out, who found no room in it, or None when sums do not fit.

        What has no room is chosen once more with settings told apart, which makes sums that nearly always have it.
        """
        names = _names(wanted)
        misfit: Misfit | None = None
        for apart in (False, True):
            told = replace(rules, apart=apart)
            mix = choose(self._ground.groups, wanted, told, budgets, outlook, briefly=outlook is not None)
            if mix is None:
                return misfit
            layout = lay_out(mix, rules)
            if isinstance(layout, Layout):
                return Accepted(names, mix, layout)
            misfit = layout
        return misfit

    def accept(self, wanted: tuple[Wanted, ...]) -> Accepted:
        """As many wishes as fit, in their order of rank."""
        able = tuple(one for one in wanted if one.items)
        if found := self._together(able):
            return found
        ranked = sorted(able, key=lambda one: one.deployment.deployment_id not in self._ground.incumbents)
        stays = self._budgets.drawing - _names(able)
        while True:
            best = self._longest(ranked, stays)
            # What was left out goes on and draws: with that counted, others may not fit either.
            if self._budgets.drawing - best.deployments <= stays:
                return best
            stays |= self._budgets.drawing - best.deployments

    def _longest(self, ranked: list[Wanted], stays: frozenset[str]) -> Accepted:
        """The longest runs of wishes that fit, from the first on."""
        taken: tuple[Wanted, ...] = ()
        best = self._nothing()
        position, step = 0, 1
        while position < len(ranked):
            more = tuple(ranked[position : position + step])
            if found := self.fit((*taken, *more), stays=stays):
                taken, best = (*taken, *more), found
                position, step = position + len(more), step * 2
            elif len(more) > 1:
                step = len(more) // 2
            else:
                position, step = position + 1, 1
        return best

    def _together(self, able: tuple[Wanted, ...]) -> Accepted | None:
        """All wishes, with nothing started anew unless that is needed or worth it."""
        names = _names(able)
        outlook, stays = None, None
        staying = self._staying(able)
        if is_large(self._ground.groups, able):
            outlook = outlook_of(self._ground.groups, able, self._rules(names), self._beside(names))
            if outlook is None:
                return None
            if staying and gap_of(staying.least_mw, outlook.bound_mw) <= ENOUGH_GAP:
                stays = self._kept(able, staying, outlook)
                if stays is not None and stays.mix.gap <= kept_gap(self._ground.groups, able, outlook):
                    return stays
        found = self.fit(able, outlook=outlook)
        # No plan that starts nothing costs less than its program relaxed: most often that tells enough.
        if found is None or staying is None or self._is_surely_worth_it(staying, able, found.mix):
            return found
        stays = stays or self._kept(able, staying, outlook)
        if stays is None or _is_worth_it(stays.mix, found.mix):
            return found
        gap = gap_of(stays.mix.cost_mw, found.mix.cost_mw * (1.0 - found.mix.gap))
        return replace(stays, mix=replace(stays.mix, gap=gap))

    def _staying(self, able: tuple[Wanted, ...]) -> Case | None:
        """The program of all wishes with nothing started anew, None when a wish has nothing."""
        kept = tuple(replace(one, items=tuple(item for item in one.items if item.incumbent)) for one in able)
        if not all(one.items for one in kept):
            return None
        names = _names(kept)
        return Case(self._ground.groups, kept, replace(self._rules(names), starts=False), self._beside(names))

    def _is_surely_worth_it(self, staying: Case, able: tuple[Wanted, ...], found: Mix) -> bool:
        """Whether a choice saves enough, told from the least that starting nothing costs and the most concerned."""
        started = found.started()
        dearest: dict[tuple[str, Base], float] = {}
        for one in able:
            for item in one.items:
                key = (item.deployment_id, item.base)
                dearest[key] = max(dearest.get(key, 0.0), item.cost_mw)
        standing = (replica for name in started for replica in self._ground.incumbents.get(name, ()))
        most_mw = sum(dearest.get((replica.deployment_id, base_of(replica)), 0.0) for replica in standing)
        return not started or staying.least_mw - found.cost_mw > WORTH_SHARE * most_mw

    def _kept(self, able: tuple[Wanted, ...], staying: Case, outlook: Outlook | None) -> Accepted | None:
        """What starts nothing anew, None when that does not do."""
        names = _names(able)
        mix = staying.mix(outlook, most_tries=1)
        layout = lay_out(mix, replace(self._rules(names), starts=False)) if mix is not None else None
        return Accepted(names, mix, layout) if mix is not None and isinstance(layout, Layout) else None

    def _nothing(self) -> Accepted:
        rules = self._rules(frozenset())
        mix = choose(self._ground.groups, (), rules, ())
        assert mix is not None
        layout = lay_out(mix, rules)
        assert not isinstance(layout, Misfit)
        return Accepted(frozenset(), mix, layout)

    def _beside(
        self, names: frozenset[str], stays: frozenset[str] | None = None, raised: Budget | None = None
    ) -> tuple[Budget, ...]:
        return self._budgets.beside((self._budgets.drawing if stays is None else stays) - names, raised)

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


def _names(wanted: Iterable[Wanted]) -> frozenset[str]:
    return frozenset(one.deployment.deployment_id for one in wanted)


def _is_worth_it(stays: Mix, found: Mix) -> bool:
    """Whether a choice saves enough to start replicas for it."""
    started = found.started()
    if not started:
        return True
    concerned = sum(
        item.cost_mw * count for share in stays.shares for item, count in share.placed if item.deployment_id in started
    )
    return stays.cost_mw - found.cost_mw > WORTH_SHARE * concerned
