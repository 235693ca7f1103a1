"""Fleets that run, large enough to be folded: the bound holds, the plan is right, and what runs is left alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest

from bench.orchestrator.fleet_of import busier, ready, situation
from services.orchestrator.core.checking.check import check
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.planning.demands import Wanted, add_demands
from services.orchestrator.core.planning.fold import add_folds, folds_of
from services.orchestrator.core.planning.ground import base_of, ground_of
from services.orchestrator.core.planning.offer import Known, offer_of
from services.orchestrator.core.planning.parcel import Rules, add_parcel
from services.orchestrator.core.planning.plan import make_plan
from services.orchestrator.core.planning.points import points_of
from services.orchestrator.core.planning.scores import Item, items_of
from services.orchestrator.core.planning.solver import Program
from services.orchestrator.core.planning.weigh import Option, weigh_all

FIRST, KNOWN = situation(60, 10), Known()
PLAN = make_plan(FIRST, KNOWN)
RUNNING = ready(FIRST, PLAN.blueprint)


@pytest.mark.parametrize("factor", [1.0, 1.3, 0.6])
def test_a_fleet_that_runs_is_planned_again_within_the_gap(factor: float) -> None:
    world = RUNNING if factor == 1.0 else busier(RUNNING, factor)
    plan = make_plan(world, KNOWN)
    assert plan == make_plan(world), "what earlier plans worked out changes nothing"
    assert not plan.timed_out
    assert check(world, plan.blueprint, plan.explanations) == ()
    assert all(explanation.feasible for explanation in plan.explanations)
    # Few deployments with whole replicas: what the prices of the relaxed program cannot tell is a few per cent.
    assert plan.gap <= 0.05
    if factor == 1.0:
        running = {replica.replica_id for replica in PLAN.blueprint.replicas}
        assert {replica.replica_id for replica in plan.blueprint.replicas} <= running, "nothing starts for nothing"


def test_a_catalogue_read_anew_is_planned_with_as_a_new_one() -> None:
    known = Known()
    make_plan(FIRST, known)
    catalog = replace(FIRST.catalog, profiles=tuple(replace(profile) for profile in FIRST.catalog.profiles))
    again = replace(FIRST, catalog=catalog)
    assert again == FIRST
    assert make_plan(again, known) == PLAN


def test_boards_that_idle_at_nearly_the_same_power_are_one_kind() -> None:
    def drawing(share: float) -> Situation:
        nodes = tuple(
            replace(
                node, devices=tuple(replace(d, idle_power_mw=d.idle_power_mw * (1.0 + share * n)) for d in node.devices)
            )
            for n, node in enumerate(FIRST.nodes)
        )
        return replace(FIRST, nodes=nodes)

    kinds = len(ground_of(FIRST).groups)
    assert len(ground_of(drawing(1e-6)).groups) == kinds
    assert len(ground_of(drawing(0.2)).groups) > kinds
    plan = make_plan(drawing(1e-6))
    assert check(drawing(1e-6), plan.blueprint, plan.explanations) == ()


def test_a_choice_without_room_is_made_again_with_settings_told_apart() -> None:
    """Two boards with a replica of each of two deployments are to be one board of each, at other clocks.

    Each would have to wait for the other to leave, which sums over both boards do not tell.
    """
    first, known = situation(100, 20, 33), Known()
    world = busier(ready(first, make_plan(first, known).blueprint), 1.1, 34)
    plan = make_plan(world, known)
    assert all(explanation.feasible for explanation in plan.explanations)
    assert plan.gap <= 0.02
    assert check(world, plan.blueprint, plan.explanations) == ()


def test_no_plan_is_cheaper_than_the_folded_groups() -> None:
    world = busier(ready(small := situation(12, 3), make_plan(small).blueprint), 1.2)
    folded, whole = programs(world)
    best, least = whole.solve(gap=1e-6), folded.solve(gap=1e-6)
    assert best is not None
    assert least is not None
    assert len(folded.costs) < len(whole.costs)
    assert 0.9 * best.cost < least.cost <= best.cost * (1.0 + 1e-5)


def programs(world: Situation) -> tuple[Program, Program]:
    """The folded program of a situation, and the whole one."""
    ground = ground_of(world)
    offer, items = offer_of(world, ground), defaultdict[str, list[Item]](list)
    wanted = []
    for wish in world.deployments:
        results = weigh_all(wish, points_of(wish, offer)[0], offer.sheaves[wish.model_id])
        options = tuple(result for result in results if isinstance(result, Option))
        bases = frozenset(base_of(replica) for replica in ground.incumbents.get(wish.deployment_id, ()))
        wanted.append(Wanted(wish, items_of(wish, options, bases)))
        for item in wanted[-1].items:
            items[item.base[1]].append(item)
    rules = Rules({}, frozenset(ground.incumbents), frozenset(), consolidation=True)
    folded, whole = Program(), Program()
    parcels = add_folds(folded, folds_of(ground.groups, rules), items, rules)
    add_demands(folded, parcels, tuple(wanted), rules, ())
    parcels = [add_parcel(whole, g, items[g.likeness.device_class], rules) for g in ground.groups]
    add_demands(whole, parcels, tuple(wanted), rules, ())
    return folded, whole
