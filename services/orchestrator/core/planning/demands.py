"""Rows of the program that speak of wishes and of budgets: what must be met, spread and limited."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.facts.fleet import Budget
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.planning.ground import Group
from services.orchestrator.core.planning.parcel import MW_PER_UNIT, Parcel, Rules
from services.orchestrator.core.planning.scores import Item
from services.orchestrator.core.planning.solver import Program
from services.orchestrator.core.planning.weigh import replicas_needed

# Budgets are kept to this share, so that rounding and a mix's shares stay within.
_BUDGET_SLACK: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Wanted:
    """A wish that takes part, and what it may be met with."""

    deployment: Deployment
    items: tuple[Item, ...]


def add_demands(
    program: Program, parcels: list[Parcel], wanted: tuple[Wanted, ...], rules: Rules, budgets: tuple[Budget, ...]
) -> frozenset[int]:
    """Adds wishes and budgets; the rows of demands and numbers of replicas."""
    places: dict[str, list[tuple[int, Item, Group]]] = defaultdict(list)
    for parcel in parcels:
        for item, column in parcel.placed.items():
            places[item.deployment_id].append((column, item, parcel.group))
    program.base += sum(one.items[0].work_mw for one in wanted if one.items) / MW_PER_UNIT
    covers = [row for one in wanted for row in _meet(program, places[one.deployment.deployment_id], one)]
    for budget in budgets:
        _limit(program, parcels, budget, rules)
    return frozenset(covers)


def _meet(program: Program, terms: list[tuple[int, Item, Group]], one: Wanted) -> list[int]:
    """Rows of a wish: its power limit, its spread, and those that are returned: its demand and number of replicas."""
    deployment = one.deployment
    covers = program.height
    if deployment.demand.requests_per_s > 0.0:
        program.row([(column, item.capacity) for column, item, _ in terms], least=1.0)
    most = float(deployment.max_replicas) if deployment.max_replicas else float("inf")
    program.row([(column, 1.0) for column, _, _ in terms], least=float(replicas_needed(deployment)), most=most)
    end = program.height
    if deployment.slo.power_mw is not None:
        limit = deployment.slo.power_mw * (1.0 + _BUDGET_SLACK)
        draws = [(column, (i.option.shown.active_mw + i.option.point.idle_mw) / limit) for column, i, _ in terms]
        program.row(draws, most=1.0)
    if deployment.spread is not None:
        _spread(program, terms, deployment)
    return list(range(covers, end))


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
        devices = [spot.device for spot in parcel.group.spots]
        limit -= sum(device.idle_power_mw if awake else device.least_power_mw for device in devices)
        if not awake:
            opened = max(device.idle_power_mw - device.least_power_mw for device in devices)
            terms += [(column, opened / MW_PER_UNIT) for column in parcel.opened.values()]
        terms += [(column, item.option.shown.active_mw / MW_PER_UNIT) for item, column in parcel.placed.items()]
    if terms:
        # Where the devices alone draw more than the budget nothing is placed; that is no matter of other scopes.
        program.row(terms, most=max(limit, 0.0) / MW_PER_UNIT)
