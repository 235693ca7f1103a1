"""The planner by example: every refusal, least change, hysteresis, who wins, what is nearest."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from services.orchestrator.core.checking.check import check
from services.orchestrator.core.facts.catalog import Catalog, Quarantine
from services.orchestrator.core.facts.explanation import Explanation, Refusal
from services.orchestrator.core.facts.fleet import Budget, Device, Node, NodeState
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.variant import Admission
from services.orchestrator.core.facts.wish import Deployment, Objective
from services.orchestrator.core.planning.plan import Plan, make_plan
from services.orchestrator.core.planning.report import differences
from tests.orchestrator.worlds import CPU, GIB, node, profile, ready, slo, two_variants, variant, wish, world


def planned(situation: Situation) -> Plan:
    """A plan that the independent check has nothing to say on."""
    plan = make_plan(situation)
    assert check(situation, plan.blueprint, plan.explanations) == ()
    return plan


def only(plan: Plan) -> Explanation:
    assert len(plan.explanations) == 1
    return plan.explanations[0]


def chosen_of(plan: Plan) -> tuple[str, str, int, int]:
    best = only(plan).chosen
    assert best, only(plan).summary
    return (best.variant_name, best.partition_kind, best.batch_limit, best.replicas)


def after(situation: Situation, plan: Plan) -> Situation:
    """The world once a plan is rolled out: everything ready."""
    nodes = tuple(
        replace(n, replicas=tuple(ready(r.replica_id) for r in plan.blueprint.replicas if r.node_id == n.node_id))
        for n in situation.nodes
    )
    gone = tuple(r.replica_id for r in plan.blueprint.leaving)
    return replace(situation, nodes=nodes, parent=plan.blueprint, gone=gone)


def test_objectives_choose_differently() -> None:
    assert chosen_of(planned(world(wish())))[:2] == ("lean", "cpu/1")
    assert chosen_of(planned(world(wish(objective=Objective.LATENCY))))[:2] == ("fast", "cpu/2")
    assert chosen_of(planned(world(wish(objective=Objective.COST))))[1] == "cpu/1"


def test_the_slo_forces_the_dearer_variant() -> None:
    assert chosen_of(planned(world(wish(slo=slo(ttft=115)))))[:2] == ("lean", "cpu/2")
    assert chosen_of(planned(world(wish(slo=slo(ttft=80)))))[:2] == ("fast", "cpu/2")


def test_demand_takes_replicas_on_cores_of_their_own() -> None:
    plan = planned(world(wish(rate=4.0, slo=slo(ttft=1500))))
    cores = [cpu for r in plan.blueprint.replicas for cpu in r.partition.cpu_ids]
    assert len(plan.blueprint.replicas) > 1
    assert len(cores) == len(set(cores))


REFUSALS: list[tuple[str, Deployment, dict[str, object]]] = [
    (Refusal.TTFT_LIMIT, wish(slo=slo(ttft=10)), {}),
    (Refusal.TPOT_LIMIT, wish(slo=slo(tpot=1)), {}),
    (Refusal.E2E_LIMIT, wish(slo=slo(e2e=50)), {}),
    (Refusal.ENERGY_LIMIT, wish(slo=slo(energy_per_token_mj=1.0)), {}),
    (Refusal.POWER_LIMIT, wish(slo=slo(power_mw=10.0)), {}),
    (Refusal.QUALITY_FLOOR, wish(slo=slo(min_top1_agreement=0.999)), {}),
    (Refusal.QUALITY_FLOOR, wish(slo=slo(max_perplexity_increase=0.001)), {}),
    (Refusal.CAPACITY, wish(rate=1000.0), {}),
    (Refusal.NO_DEVICE, wish(), {"nodes": ()}),
    (Refusal.NO_DEVICE, wish(node_selector=(("rack", "r9"),)), {}),
    (Refusal.NO_DEVICE, wish(), {"nodes": (node(state=NodeState.DRAINED),)}),
    (Refusal.NO_PROFILE, wish(), {"catalog": Catalog((variant("fast"),), ())}),
    (Refusal.POWER_BUDGET, wish(rate=1.0), {"budgets": (Budget("site", 10_001.0),)}),
    (Refusal.NOT_PINNED, wish(pinned_variant_id="sha256:else"), {}),
]


@pytest.mark.parametrize("case", REFUSALS, ids=[f"{i}-{c[0]}" for i, c in enumerate(REFUSALS)])
def test_refusals_have_a_code_and_numbers(case: tuple[str, Deployment, dict[str, object]]) -> None:
    code, deployment, changes = case
    explanation = only(planned(world(deployment, **changes)))
    assert explanation.binding_limit == code, explanation.summary
    assert any(c.refusal == code and c.reason for c in explanation.candidates)


def test_more_refusals() -> None:
    fast = variant("fast")
    big = Catalog((fast,), (profile(fast.variant_id, memory_bytes=64 * GIB),))
    assert only(planned(world(wish(), catalog=big))).binding_limit == Refusal.MEMORY
    rejected = variant("bad", admission=Admission.REJECTED, admission_reason="KL 9")
    alone = Catalog((rejected,), (profile(rejected.variant_id),))
    assert only(planned(world(wish(), catalog=alone))).binding_limit == Refusal.VARIANT_REJECTED
    short = Catalog((variant("short", context_tokens=100),), (profile("sha256:short"),))
    assert only(planned(world(wish(), catalog=short))).binding_limit == Refusal.CONTEXT
    assert only(planned(world(wish(), catalog=Catalog()))).binding_limit == "NO_VARIANT"
    bad = tuple(Quarantine("d-chat", v, CPU, "canary", 1e9) for v in ("sha256:fast", "sha256:lean"))
    assert only(planned(world(wish(), quarantined=bad))).binding_limit == Refusal.QUARANTINED


@pytest.mark.parametrize(
    "deployment",
    [
        wish(slo=slo(ttft=10)),
        wish(slo=slo(ttft=10, tpot=1)),
        wish(rate=3.0, slo=slo(ttft=60, tpot=15)),
        wish(slo=slo(energy_per_token_mj=1.0, ttft=50)),
        wish(slo=slo(min_top1_agreement=0.999, power_mw=1.0)),
        wish(slo=slo(availability=0.9999999), max_replicas=2),
    ],
    ids=str,
)
def test_the_nearest_slo_is_feasible_when_it_is_asked_for(deployment: Deployment) -> None:
    explanation = only(planned(world(deployment)))
    assert explanation.binding_limit
    assert explanation.nearest_slo is not None, explanation.summary
    again = only(planned(world(replace(deployment, slo=explanation.nearest_slo))))
    assert again.feasible, again.summary


def test_what_runs_stays_and_a_plan_again_changes_nothing() -> None:
    situation = world(wish(rate=2.0), wish("second"))
    plan = planned(situation)
    settled = after(situation, plan)
    assert planned(settled).blueprint is settled.parent
    more = replace(settled, deployments=(*settled.deployments, wish("third")))
    assert set(plan.blueprint.replicas) <= set(planned(more).blueprint.replicas)


def test_a_small_gain_is_not_worth_a_swap_a_large_one_is() -> None:
    situation = world(wish(rate=1.0))
    settled = after(situation, planned(situation))
    for energy_mj, swaps in ((245.0, False), (60.0, True)):
        other = variant("other")
        catalog = Catalog(
            (*settled.catalog.variants, other),
            (*settled.catalog.profiles, profile(other.variant_id, ttft_ms=160, tpot_ms=30, energy_mj=energy_mj)),
        )
        plan = planned(replace(settled, catalog=catalog))
        assert (chosen_of(plan)[0] == "other") is swaps
        held = planned(replace(settled, catalog=catalog, settled=("d-chat",)))
        assert chosen_of(held)[0] == "lean", "in its cool-down it is kept"


def test_a_swap_without_room_shares_cores_with_its_own_old_replica_only() -> None:
    situation = world(wish(), nodes=(node(cores=2),))
    settled = after(situation, planned(situation))
    plan = planned(replace(settled, deployments=(wish(slo=slo(ttft=80), generation=2),)))
    assert [r.partition.cpu_ids for r in plan.blueprint.replicas] == [(0, 1)]
    assert [r.hold for r in plan.blueprint.leaving] == [True]
    lines = differences(settled.parent, plan.blueprint, {})
    assert any("shares cores for the moment with" in line for line in lines)


def test_older_wishes_win_and_the_newcomer_hears_why() -> None:
    first, second = (wish(name, slo=slo(ttft=80)) for name in ("first", "second"))
    situation = world(first, second, nodes=(node(cores=2),))
    plan = planned(situation)
    assert [e.feasible for e in plan.explanations] == [True, False]
    assert plan.explanations[1].binding_limit == Refusal.CAPACITY


def test_one_makes_room_for_another_when_both_then_fit() -> None:
    alone = world(wish("a", objective=Objective.LATENCY), nodes=(node(cores=2),))
    settled = after(alone, planned(alone))
    assert len(settled.parent.replicas[0].partition.cpu_ids) == 2
    both = replace(settled, deployments=(*settled.deployments, wish("b")))
    plan = planned(both)
    assert all(e.feasible for e in plan.explanations), [e.summary for e in plan.explanations]
    assert sorted(cpu for r in plan.blueprint.replicas for cpu in r.partition.cpu_ids) == [0, 1]


def test_an_infeasible_change_keeps_what_serves() -> None:
    situation = world(wish())
    settled = after(situation, planned(situation))
    plan = planned(replace(settled, deployments=(wish(slo=slo(ttft=1), generation=2),)))
    assert not only(plan).feasible
    assert plan.blueprint is settled.parent


def test_a_drained_or_lost_node_is_left() -> None:
    situation = world(wish(), nodes=(node("n1"), node("n2")))
    settled = after(situation, planned(situation))
    home = settled.parent.replicas[0].node_id
    for state in (NodeState.DRAINING, NodeState.LOST):
        nodes = tuple(replace(n, state=state) if n.node_id == home else n for n in settled.nodes)
        plan = planned(replace(settled, nodes=nodes))
        assert [r.node_id for r in plan.blueprint.replicas] != [home]
        assert [(r.node_id, r.hold) for r in plan.blueprint.leaving] == [(home, True)]
    suspect = tuple(replace(n, state=NodeState.SUSPECT) if n.node_id == home else n for n in settled.nodes)
    assert planned(replace(settled, nodes=suspect)).blueprint is settled.parent


def test_nodes_asked_for_by_label_are_the_only_ones() -> None:
    nodes = (node("n1"), node("n2", cores=2, labels=(("zone", "a"),)), node("n3", cores=1, labels=(("zone", "a"),)))
    plan = planned(
        world(wish(node_selector=(("zone", "a"),), min_replicas=3), wish("any", min_replicas=2), nodes=nodes)
    )
    assert {r.node_id for r in plan.blueprint.of("d-chat")} == {"n2", "n3"}
    assert {r.node_id for r in plan.blueprint.of("d-any")} == {"n1"}


def test_a_node_that_returns_has_its_replica_taken_back() -> None:
    situation = world(wish())
    settled = after(situation, planned(situation))
    lost = replace(settled, nodes=(replace(settled.nodes[0], state=NodeState.LOST),))
    away = planned(lost)
    assert (away.blueprint.replicas, len(away.blueprint.leaving)) == ((), 1)
    back = planned(replace(settled, parent=away.blueprint, gone=()))
    assert [r.replica_id for r in back.blueprint.replicas] == [r.replica_id for r in settled.parent.replicas]
    assert back.blueprint.leaving == ()


def test_replicas_of_a_deleted_deployment_leave() -> None:
    situation = world(wish())
    settled = after(situation, planned(situation))
    plan = planned(replace(settled, deployments=()))
    assert (plan.blueprint.replicas, [r.hold for r in plan.blueprint.leaving]) == ((), [False])


def test_the_same_everywhere_whatever_the_hash_seed() -> None:
    code = (
        "from tests.orchestrator.worlds import *; from services.orchestrator.core.planning.plan import make_plan; "
        "s = world(wish('a', 2.0, slo=slo(ttft=900)), wish('b', 1.0), nodes=(node('n1'), node('n2'))); "
        "print(make_plan(s))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert "bp-1-" in outputs[0]


def test_two_variants_are_what_the_others_assume() -> None:
    assert [v.name for v in two_variants().variants] == ["fast", "lean"]


def test_of_equal_costs_the_larger_batch_limit_is_taken() -> None:
    (replica,) = make_plan(world(wish())).blueprint.replicas
    assert (replica.variant_id, replica.batch_limit) == ("sha256:lean", 4)


def test_what_is_possible_counts_devices_of_every_class_together() -> None:
    """Each class alone takes some of a demand that all together do not: told is what both take, and it is planned."""
    one = variant("one")
    other = Device("cpu0", "cpu:other", 16 * GIB, tuple(range(4)), (), 10_000.0)
    fleet = (node("a"), replace(node("b"), devices=(other,)))
    catalog = Catalog(
        (one,), tuple(profile(one.variant_id, "cpu/1", batches=(4,), device_class=c) for c in (CPU, "cpu:other"))
    )

    def possible(*nodes: Node) -> float:
        told = make_plan(world(wish(rate=500.0, slo=slo(ttft=400)), nodes=nodes, catalog=catalog)).explanations[0]
        assert not told.feasible
        assert told.nearest_demand_requests_per_s is not None
        return told.nearest_demand_requests_per_s

    alone, together = possible(fleet[0]), possible(*fleet)
    assert together > 1.8 * alone
    assert (
        make_plan(world(wish(rate=together, slo=slo(ttft=400)), nodes=fleet, catalog=catalog)).explanations[0].feasible
    )
