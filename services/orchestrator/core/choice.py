"""Chooses how many replicas of which options stand on which groups of devices: one mixed integer program for all.

Whole numbers of alike things, so a thousand equal nodes cost no more than one. Wishes must be met entirely; which of
them take part is the caller's business (`accept`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.fleet import Budget
from services.orchestrator.core.ground import Group, Tenant
from services.orchestrator.core.parcel import MW_PER_UNIT, Opening, Parcel, Rules, add_parcel
from services.orchestrator.core.scores import Item
from services.orchestrator.core.solver import Program
from services.orchestrator.core.weigh import idle_mw, replicas_needed
from services.orchestrator.core.wish import Deployment

# Budgets are kept to this share, so that rounding and a mix's shares stay within.
_BUDGET_SLACK: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Wanted:
    """A wish that takes part, and what it may be met with."""

    deployment: Deployment
    items: tuple[Item, ...]


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
    program = Program()
    items = _by_class(one.items for one in wanted)
    parcels = [add_parcel(program, g, items.get(g.likeness.device_class, ()), rules) for g in groups]
    for one in wanted:
        _meet(program, parcels, one)
    for budget in budgets:
        _limit(program, parcels, budget, rules)
    answer = program.solve()
    if answer is None:
        return None
    values = [round(value) for value in answer.values]
    return Mix(tuple(_share(parcel, values) for parcel in parcels), answer.cost * MW_PER_UNIT, answer.gap)


def _by_class(menus: Iterable[tuple[Item, ...]]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = defaultdict(list)
    for items in menus:
        for item in items:
            found[item.base[1]].append(item)
    return found


def _meet(program: Program, parcels: list[Parcel], one: Wanted) -> None:
    """Rows of a wish: its demand, its numbers of replicas, its power limit, its spread."""
    deployment, mine = one.deployment, frozenset(one.items)
    terms = [(c, item, p.group) for p in parcels for item, c in p.placed.items() if item in mine]
    if deployment.demand.requests_per_s > 0.0:
        program.row([(column, item.capacity) for column, item, _ in terms], least=1.0)
    most = float(deployment.max_replicas) if deployment.max_replicas else float("inf")
    program.row([(column, 1.0) for column, _, _ in terms], least=float(replicas_needed(deployment)), most=most)
    if deployment.slo.power_mw is not None:
        limit = deployment.slo.power_mw * (1.0 + _BUDGET_SLACK)
        draws = [(column, (i.option.active_mw + idle_mw(i.option.point)) / limit) for column, i, _ in terms]
        program.row(draws, most=1.0)
    if deployment.spread is not None:
        _spread(program, terms, deployment)


def _spread(program: Program, terms: list[tuple[int, Item, Group]], deployment: Deployment) -> None:
    assert deployment.spread is not None
    domains: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for column, _, group in terms:
        domains[dict(group.likeness.labels).get(f"domain:{deployment.spread.label}", "")].append((column, 1.0))
    if nowhere := domains.pop("", []):
        program.row(nowhere, most=0.0)
    wanted, used = float(deployment.spread.domains), []
    everywhere = [(column, 1.0) for column, _, _ in terms]
    for columns in domains.values():
        here = {column for column, _ in columns}
        program.row([(c, wanted - 1.0 if c in here else -1.0) for c, _ in everywhere], most=wanted - 1.0)
        flag = program.column(0.0, 1.0)
        program.row([(flag, 1.0), *((column, -1.0) for column, _ in columns)], most=0.0)
        used.append((flag, 1.0))
    program.row(used, least=wanted)


def _limit(program: Program, parcels: list[Parcel], budget: Budget, rules: Rules) -> None:
    """Idle power of all devices in scope, asleep or awake, and active power of what is placed there."""
    limit, terms = budget.limit_mw * (1.0 - _BUDGET_SLACK), list[tuple[int, float]]()
    for parcel in parcels:
        like = parcel.group.likeness
        if budget.scope != "site" and budget.scope not in like.budgets:
            continue
        awake = bool(like.content) or not rules.consolidation
        limit -= (like.idle_power_mw if awake else like.least_power_mw) * parcel.group.size
        if not awake:
            opened = like.idle_power_mw - like.least_power_mw
            terms += [(column, opened / MW_PER_UNIT) for column in parcel.opened.values()]
        terms += [(column, item.option.active_mw / MW_PER_UNIT) for item, column in parcel.placed.items()]
    if terms:
        program.row(terms, most=limit / MW_PER_UNIT)


def _share(parcel: Parcel, values: list[int]) -> Share:
    return Share(
        parcel.group,
        parcel.fixed,
        tuple((opening, values[column]) for opening, column in parcel.opened.items() if values[column]),
        tuple((item, values[column]) for item, column in parcel.placed.items() if values[column]),
        tuple((tenant, values[column]) for tenant, column in parcel.kept.items() if values[column]),
    )
