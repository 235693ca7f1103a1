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
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.planning.figures import idle_mw
from services.orchestrator.core.planning.fold import add_folds, folds_of
from services.orchestrator.core.planning.ground import Group, Tenant
from services.orchestrator.core.planning.mixes import Way, ways
from services.orchestrator.core.planning.parcel import MW_PER_UNIT, Opening, Parcel, Rules, add_parcel
from services.orchestrator.core.planning.scores import Item
from services.orchestrator.core.planning.solver import Answer, Program
from services.orchestrator.core.planning.weigh import replicas_needed

# Programs of up to so many columns are solved as they are; larger ones by ways (docs/adr/0035).
MOST_DIRECT: Final = 120
# Programs of up to so many columns are written down whole; larger ones after folding (docs/adr/0038).
MOST_WHOLE: Final = 4_000
# Ways offered for each wish, and the time for choosing among them.
WAYS_KEPT: Final = 24
MOST_WAYS_S: Final = 4.0
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
    covers = _demands(program, parcels, wanted, rules, budgets)
    if len(program.costs) <= MOST_DIRECT:
        answer = program.solve()
    else:
        answer = _by_ways(program, parcels, wanted, covers) or program.solve()
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
    covers = _demands(program, parcels, wanted, rules, budgets)
    prices = program.prices()
    if prices is None:
        return None
    priced = _priced(program, parcels, wanted, covers, prices)
    if priced is None:
        return _Worth((), 0.0)
    menus = []
    for one, (offered, found) in zip(wanted, priced.ways, strict=True):
        used = {offered[number] for way in found for number, _ in way.counts}
        menus.append(replace(one, items=tuple(i for i in one.items if i in used or i.incumbent)))
    return _Worth(tuple(menus), priced.bound * MW_PER_UNIT)


def _demands(
    program: Program, parcels: list[Parcel], wanted: tuple[Wanted, ...], rules: Rules, budgets: tuple[Budget, ...]
) -> frozenset[int]:
    """Adds wishes and budgets; the rows of demands and numbers of replicas."""
    places: dict[str, list[tuple[int, Item, Group]]] = defaultdict(list)
    for parcel in parcels:
        for item, column in parcel.placed.items():
            places[item.deployment_id].append((column, item, parcel.group))
    covers = [row for one in wanted for row in _meet(program, places[one.deployment.deployment_id], one)]
    for budget in budgets:
        _limit(program, parcels, budget, rules)
    return frozenset(covers)


@dataclass(frozen=True, slots=True)
class _Priced:
    """For each wish the items that have a column and the cheapest ways to use them; a lower bound of the cost."""

    ways: tuple[tuple[list[Item], list[Way]], ...]
    bound: float
    columns: dict[Item, list[int]]


def _priced(
    program: Program,
    parcels: list[Parcel],
    wanted: tuple[Wanted, ...],
    covers: frozenset[int],
    prices: tuple[float, ...],
) -> _Priced | None:
    """Ways at the prices of room (Lagrange); None when a wish has none."""
    reduced = program.reduced_costs(prices, covers)
    placing = {column for parcel in parcels for column in parcel.placed.values()}
    bound = program.paid(prices, covers) + sum(
        min(cost * upper, 0.0)
        for column, (cost, upper) in enumerate(zip(reduced, program.uppers, strict=True))
        if cost < -1e-9 and column not in placing
    )
    columns: dict[Item, list[int]] = defaultdict(list)
    for parcel in parcels:
        for item, column in parcel.placed.items():
            columns[item].append(column)
    found = []
    for one in wanted:
        items = [item for item in one.items if item in columns]
        costs = [max(min(reduced[column] for column in columns[item]), 0.0) for item in items]
        least, most = replicas_needed(one.deployment), one.deployment.max_replicas
        near = ways([item.capacity for item in items], costs, least, most, WAYS_KEPT) if items else []
        if not near:
            return None
        bound += near[0].cost
        found.append((items, near))
    return _Priced(tuple(found), bound, columns)


def _by_ways(
    program: Program, parcels: list[Parcel], wanted: tuple[Wanted, ...], covers: frozenset[int]
) -> Answer | None:
    """Solves a large program by ways: prices of room first, then one way for each wish among those near the cheapest.

    The gap is against the bound of the prices (Lagrange), for plans with at most two options for each wish.
    """
    prices = program.prices()
    if prices is None:
        return None
    priced = _priced(program, parcels, wanted, covers, prices)
    if priced is None:
        return None
    smaller = Program(list(program.costs), list(program.uppers), list(program.whole))
    smaller.rows = [row for number, row in enumerate(program.rows) if number not in covers]
    for items, near in priced.ways:
        _one_of(smaller, items, priced.columns, [way.counts for way in near])
    answer = smaller.solve(most_s=MOST_WAYS_S)
    if answer is None:
        return None
    gap = max(answer.cost - priced.bound, 0.0) / max(abs(answer.cost), 1e-9)
    return Answer(answer.values[: len(program.costs)], answer.cost, gap)


def _one_of(
    program: Program, items: list[Item], columns: dict[Item, list[int]], counts: list[tuple[tuple[int, int], ...]]
) -> None:
    """Rows that place exactly what one of the ways says."""
    terms: dict[int, list[tuple[int, float]]] = defaultdict(list)
    flags = []
    for way in counts:
        flag = program.column(0.0, 1.0)
        flags.append((flag, 1.0))
        for number, count in way:
            terms[number].append((flag, -float(count)))
    program.row(flags, least=1.0, most=1.0)
    for number, item in enumerate(items):
        mine = columns[item]
        if number not in terms:
            for column in mine:
                program.uppers[column] = 0.0
            continue
        if len(mine) == 1:
            program.whole[mine[0]] = False
        program.row([*((column, 1.0) for column in mine), *terms[number]], least=0.0, most=0.0)


def _by_class(menus: Iterable[tuple[Item, ...]]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = defaultdict(list)
    for items in menus:
        for item in items:
            found[item.base[1]].append(item)
    return found


def _meet(program: Program, places: list[tuple[int, Item, Group]], one: Wanted) -> list[int]:
    """Rows of a wish: its power limit, its spread, and those that are returned: its demand and number of replicas."""
    deployment, mine = one.deployment, frozenset(one.items)
    terms = [place for place in places if place[1] in mine]
    covers = len(program.rows)
    if deployment.demand.requests_per_s > 0.0:
        program.row([(column, item.capacity) for column, item, _ in terms], least=1.0)
    most = float(deployment.max_replicas) if deployment.max_replicas else float("inf")
    program.row([(column, 1.0) for column, _, _ in terms], least=float(replicas_needed(deployment)), most=most)
    end = len(program.rows)
    if deployment.slo.power_mw is not None:
        limit = deployment.slo.power_mw * (1.0 + _BUDGET_SLACK)
        draws = [(column, (i.option.shown.active_mw + idle_mw(i.option.point)) / limit) for column, i, _ in terms]
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
        limit -= (like.idle_power_mw if awake else like.least_power_mw) * parcel.group.size
        if not awake:
            opened = like.idle_power_mw - like.least_power_mw
            terms += [(column, opened / MW_PER_UNIT) for column in parcel.opened.values()]
        terms += [(column, item.option.shown.active_mw / MW_PER_UNIT) for item, column in parcel.placed.items()]
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
