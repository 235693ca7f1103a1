"""What is done of a saving while devices cool down: boards with nothing on them sleep, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

from services.orchestrator.core.checking.check import check
from services.orchestrator.core.cooling import cooling
from services.orchestrator.core.facts.blueprint import Blueprint
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import Node
from services.orchestrator.core.facts.levers import Levers
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.planning.plan import Plan, make_plan
from tests.orchestrator.worlds import node, profile, ready, two_variants, variant, wish, world

THRIFTY = variant("thrifty")


def sleepy(name: str, device_class: str = "cpu:test") -> Node:
    """A node whose device may sleep."""
    made = node(name)
    return replace(
        made, devices=tuple(replace(d, device_class=device_class, sleep_power_mw=1_000.0) for d in made.devices)
    )


def later(catalog: Catalog, other: Node) -> Situation:
    """A deployment serves on n1, another node is awake with nothing on it, and there is a new catalog."""
    before = make_plan(world(wish(), nodes=(sleepy("n1"),)))
    replicas = tuple(ready(r.replica_id) for r in before.blueprint.replicas)
    nodes = (replace(sleepy("n1"), replicas=replicas), other)
    return world(wish(), nodes=nodes, catalog=catalog, parent=before.blueprint)


def with_thrifty(device_class: str) -> Catalog:
    """One more variant, which takes far less on these devices."""
    known = two_variants()
    made = profile(THRIFTY.variant_id, energy_mj=5.0, device_class=device_class)
    return Catalog((*known.variants, THRIFTY), (*known.profiles, made))


def cooled(situation: Situation) -> tuple[Plan, Blueprint]:
    """The plan, and what of it is done while it cools down."""
    plan = make_plan(situation)
    rest = cooling(plan, situation, situation, "why")
    assert check(situation, rest.blueprint, rest.explanations) == ()
    return plan, rest.blueprint


def test_a_board_that_is_empty_sleeps_while_a_swap_waits() -> None:
    situation = later(with_thrifty("cpu:test"), sleepy("n2"))
    plan, rest = cooled(situation)
    assert {r.variant_id for r in plan.blueprint.replicas} == {THRIFTY.variant_id}
    assert (rest.replicas, rest.leaving) == (situation.parent.replicas, ())
    assert [(layout.node_id, layout.asleep) for layout in rest.layouts if layout.asleep] == [("n2", ("cpu0",))]


def test_one_that_a_waiting_change_would_use_sleeps_meanwhile() -> None:
    situation = later(with_thrifty("cpu:other"), sleepy("n2", "cpu:other"))
    plan, rest = cooled(situation)
    assert {r.node_id for r in plan.blueprint.replicas} == {"n2"}
    assert rest.replicas == situation.parent.replicas
    assert [(layout.node_id, layout.asleep) for layout in rest.layouts if layout.asleep] == [("n2", ("cpu0",))]
    awake = replace(situation, levers=Levers(consolidation=False))
    assert cooled(awake)[1] is situation.parent


def test_nothing_is_done_when_nothing_is_empty() -> None:
    both = later(with_thrifty("cpu:test"), node("n2"))
    assert cooled(both)[1] is both.parent
