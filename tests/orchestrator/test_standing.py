"""Ways to meet a wish that begin with what it runs."""

from __future__ import annotations

import itertools

import pytest

from bench.orchestrator.fleet_of import busier, ready, situation
from services.orchestrator.core.checking.check import check
from services.orchestrator.core.planning.offer import Known
from services.orchestrator.core.planning.plan import make_plan
from services.orchestrator.core.planning.standing import ways_from

CAPACITIES, COSTS = [0.25, 0.2, 0.5], [10.0, 12.0, 15.0]


def test_what_is_too_much_ends_the_dearest_for_what_it_covers_first() -> None:
    assert [way.counts for way in ways_from({0: 4, 1: 3}, CAPACITIES, COSTS, 1, 0)] == [((0, 4),)]
    assert [way.counts for way in ways_from({0: 3, 1: 3}, CAPACITIES, COSTS, 1, 0)] == [((0, 3), (1, 2))]


def test_no_more_ends_than_the_fewest_replicas_allow() -> None:
    assert [way.counts for way in ways_from({2: 4}, CAPACITIES, COSTS, 3, 0)] == [((2, 3),)]


def test_what_is_missing_is_added_of_one_option_the_cheapest_first() -> None:
    found = ways_from({0: 2}, CAPACITIES, COSTS, 1, 0)
    assert [way.counts for way in found] == [((0, 2), (2, 1)), ((0, 4),), ((0, 2), (1, 3))]
    assert [way.cost for way in found] == [35.0, 40.0, 56.0]


def test_nothing_begins_where_nothing_runs() -> None:
    assert ways_from({}, CAPACITIES, COSTS, 1, 0) == []


@pytest.mark.parametrize(("least", "most"), [(1, 0), (3, 0), (1, 5), (4, 6)])
def test_every_way_meets_the_wish(least: int, most: int) -> None:
    found = 0
    for counts in itertools.product(range(4), repeat=3):
        running = {number: count for number, count in enumerate(counts) if count}
        for way in ways_from(running, CAPACITIES, COSTS, least, most):
            found += 1
            assert sum(CAPACITIES[number] * count for number, count in way.counts) >= 1.0 - 1e-9
            assert least <= sum(count for _, count in way.counts) <= (most or 99)
            assert way.cost == pytest.approx(sum(COSTS[number] * count for number, count in way.counts))
    assert found > 30


def test_a_plan_that_was_rolled_out_is_found_again() -> None:
    """The cheapest ways at prices do not stand here: without those that do, fourteen replicas start for nothing."""
    first, known = situation(100, 20, 0), Known()
    plan = make_plan(first, known)
    again = make_plan(ready(first, plan.blueprint), known)
    running = {replica.replica_id for replica in plan.blueprint.replicas}
    assert {replica.replica_id for replica in again.blueprint.replicas} <= running
    assert again.gap <= 0.01


def test_a_rise_is_met_beside_what_runs() -> None:
    """No choice among the cheapest ways fits beside what runs here: without others one of twenty is not met."""
    first, known = situation(100, 20, 4), Known()
    world = busier(ready(first, make_plan(first, known).blueprint), 1.25, 5)
    plan = make_plan(world, known)
    assert all(explanation.feasible for explanation in plan.explanations)
    assert plan.gap <= 0.02
    assert check(world, plan.blueprint, plan.explanations) == ()
