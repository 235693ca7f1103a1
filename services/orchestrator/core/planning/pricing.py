"""Solves a large program by ways: prices of room first, then one way for each wish among those near the cheapest."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Final

import numpy

from services.orchestrator.core.planning.demands import Wanted
from services.orchestrator.core.planning.mixes import Way, ways
from services.orchestrator.core.planning.parcel import Parcel
from services.orchestrator.core.planning.scores import Item
from services.orchestrator.core.planning.solver import Answer, Program
from services.orchestrator.core.planning.standing import standing_counts, standing_of, ways_from
from services.orchestrator.core.planning.weigh import replicas_needed

# Ways offered for each wish: more of them come nearer to the least cost and take longer (docs/adr/0058).
WAYS_KEPT: Final = 24
FEW_WAYS: Final = 10
# Columns up to which a program is searched whole at once.
MOST_SEARCHED_WHOLE: Final = 1_000
# In larger ones columns are looked at first of which one alone raises the relaxed cost by no more than this share, half
# of them; that search is short, so it may come nearer to the best (docs/adr/0121).
NEAR_SHARE: Final = 5e-4
NEAR_GAP: Final = 0.0025


@dataclass(frozen=True, slots=True)
class Priced:
    """For each wish the items that have a column and the cheapest ways to use them; a lower bound of the cost."""

    ways: tuple[tuple[list[Item], list[Way]], ...]
    bound: float
    columns: dict[Item, list[int]]


def priced_ways(
    program: Program,
    parcels: list[Parcel],
    wanted: tuple[Wanted, ...],
    covers: frozenset[int],
    prices: tuple[float, ...],
    keep: int = WAYS_KEPT,
) -> Priced | None:
    """Ways at the prices of room (Lagrange), `keep` for each wish; None when a wish has none."""
    reduced = program.reduced_costs(prices, covers)
    placing = {column for parcel in parcels for column in parcel.placed.values()}
    bound = (
        program.base
        + program.paid(prices, covers)
        + sum(
            min(cost * upper, 0.0)
            for column, (cost, upper) in enumerate(zip(reduced, program.uppers, strict=True))
            if cost < -1e-9 and column not in placing
        )
    )
    columns: dict[Item, list[int]] = defaultdict(list)
    for parcel in parcels:
        for item, column in parcel.placed.items():
            columns[item].append(column)
    found, standing = [], standing_of(parcels)
    for one in wanted:
        items = [item for item in one.items if item in columns]
        costs = [max(min(reduced[column] for column in columns[item]), 0.0) for item in items]
        least, most = replicas_needed(one.deployment), one.deployment.max_replicas
        capacities = [item.capacity for item in items]
        near = ways(capacities, costs, least, most, keep) if items else []
        if not near:
            return None
        counts = standing_counts(items, costs, standing) if standing else {}
        more = [way for way in ways_from(counts, capacities, costs, least, most) if way not in near]
        bound += min(way.cost for way in (near[0], *more))
        found.append((items, [*near, *more]))
    return Priced(tuple(found), bound, columns)


def solve_by_ways(
    program: Program,
    priced: Priced,
    covers: frozenset[int],
    enough: float | None = None,
    good: float = -math.inf,
) -> Answer | None:
    """Solves a large program by ways: one for each wish among those near the cheapest.

    The gap is against the bound of the prices (Lagrange), for plans with at most two options for each wish.

    Args:
        covers: rows of demands and numbers of replicas, which ways meet.
        enough: a cost that is good enough to stop at.
        good: a cost that ends the search among the columns that look best (docs/adr/0121).
    """
    smaller = program.without(covers)
    for items, near in priced.ways:
        _one_of(smaller, items, priced.columns, [way.counts for way in near])
    answer = None
    if math.isfinite(good) and len(program.costs) > MOST_SEARCHED_WHOLE:
        answer = _near_best(smaller, enough, good)
    answer = answer or smaller.solve(enough=enough)
    if answer is None:
        return None
    gap = max(answer.cost - priced.bound, 0.0) / max(abs(answer.cost), 1e-9)
    return replace(answer, values=answer.values[: len(program.costs)], gap=gap)


def _near_best(program: Program, enough: float | None, good: float) -> Answer | None:
    """The best among columns near the relaxed answer, None when it is dearer than `good`."""
    open_columns = numpy.array(program.uppers) > 0.0
    smaller = program.only(open_columns)
    relaxed = smaller.relaxed()
    if relaxed is None or not math.isfinite(relaxed.cost):
        return None
    reduced = numpy.array(smaller.reduced_costs(relaxed.prices, frozenset()))
    near = reduced <= NEAR_SHARE * abs(relaxed.cost)
    answer = smaller.only(near).solve(NEAR_GAP, enough, good)
    if answer is None or answer.cost > good:
        return None
    values = numpy.zeros(len(program.costs))
    values[numpy.flatnonzero(open_columns)[near]] = answer.values
    return replace(answer, values=tuple(values.tolist()))


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
