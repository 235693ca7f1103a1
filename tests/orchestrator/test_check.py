"""The independent check finds each way in which a plan can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from services.orchestrator.core.checking.check import check
from services.orchestrator.core.facts.blueprint import Blueprint, Replica
from services.orchestrator.core.facts.fleet import NodeState
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.variant import Admission
from services.orchestrator.core.planning.plan import make_plan
from tests.orchestrator.worlds import node, ready, slo, variant, wish, world

SITUATION = world(wish(rate=2.0, slo=slo(ttft=1200, min_top1_agreement=0.9)), nodes=(node("n1"), node("n2")))
PLAN = make_plan(SITUATION)

Change = Callable[[Blueprint], Blueprint]


def first(**changes: object) -> Change:
    """Changes the first replica."""

    def change(blueprint: Blueprint) -> Blueprint:
        head, *rest = blueprint.replicas
        return replace(blueprint, replicas=(replace(head, **changes), *rest))  # type: ignore[arg-type]

    return change


def cores(*cpu_ids: int, kind: str | None = None) -> Change:
    def change(blueprint: Blueprint) -> Blueprint:
        partition = blueprint.replicas[0].partition
        return first(partition=replace(partition, cpu_ids=cpu_ids, kind=kind or f"cpu/{len(cpu_ids)}"))(blueprint)

    return change


def same_place(blueprint: Blueprint) -> Blueprint:
    one, two, *rest = blueprint.replicas
    return replace(blueprint, replicas=(one, replace(two, node_id=one.node_id, partition=one.partition), *rest))


def twice(blueprint: Blueprint) -> Blueprint:
    return replace(blueprint, leaving=(blueprint.replicas[0],))


WRONG: list[tuple[str, Change]] = [
    ("does not follow", lambda b: replace(b, generation=7)),
    ("does not follow", lambda b: replace(b, parent_id="else")),
    ("overlap", same_place),
    ("appears twice", twice),
    ("no variant of its deployment's model", first(variant_id="sha256:unknown")),
    ("is not known", first(node_id="n9")),
    ("serves no deployment", first(deployment_id="d-else")),
    ("has cores", cores(7)),
    ("has cores", cores(1, 1, kind="cpu/2")),
    ("its kind is", cores(0, kind="cpu/2")),
    ("is no cpu:else", first(device_class="cpu:else")),
    ("at least 1 are wished", lambda b: replace(b, replicas=())),
    ("TTFT within 1200 ms", lambda b: replace(b, replicas=b.replicas[:1])),
    ("bytes on", first(memory_bytes=1 << 50)),
]


def test_the_plan_itself_is_right() -> None:
    assert len(PLAN.blueprint.replicas) > 1
    assert check(SITUATION, PLAN.blueprint, PLAN.explanations) == ()


@pytest.mark.parametrize("case", WRONG, ids=[f"{i}-{w}" for i, (w, _) in enumerate(WRONG)])
def test_each_wrong_is_found(case: tuple[str, Change]) -> None:
    words, change = case
    findings = check(SITUATION, change(PLAN.blueprint), PLAN.explanations)
    assert any(words in finding for finding in findings), findings


def findings_in(situation: Situation) -> str:
    return "; ".join(check(situation, PLAN.blueprint, PLAN.explanations))


def test_a_world_that_does_not_fit_the_plan_is_found() -> None:
    strict = replace(SITUATION.deployments[0], slo=slo(ttft=20))
    assert "TTFT within 20 ms" in findings_in(replace(SITUATION, deployments=(strict,)))
    choosy = replace(SITUATION.deployments[0], slo=slo(min_top1_agreement=0.999))
    assert "0.999 is the floor" in findings_in(replace(SITUATION, deployments=(choosy,)))
    thrifty = replace(SITUATION.deployments[0], slo=slo(energy_per_token_mj=1.0))
    assert "mJ a token" in findings_in(replace(SITUATION, deployments=(thrifty,)))
    labelled = replace(SITUATION.deployments[0], node_selector=(("rack", "r1"),))
    assert "without the label rack=r1" in findings_in(replace(SITUATION, deployments=(labelled,)))
    drained = tuple(replace(n, state=NodeState.DRAINED) for n in SITUATION.nodes)
    assert "which is drained" in findings_in(replace(SITUATION, nodes=drained))
    catalog = SITUATION.catalog
    rejected = tuple(replace(v, admission=Admission.REJECTED) for v in catalog.variants)
    assert "which is rejected" in findings_in(replace(SITUATION, catalog=replace(catalog, variants=rejected)))
    assert "never profiled" in findings_in(replace(SITUATION, catalog=replace(catalog, profiles=())))
    assert "no explanation" in "; ".join(check(SITUATION, PLAN.blueprint, ()))


def test_a_ready_replica_may_not_vanish() -> None:
    nodes = tuple(
        replace(n, replicas=tuple(ready(r.replica_id) for r in PLAN.blueprint.replicas if r.node_id == n.node_id))
        for n in SITUATION.nodes
    )
    situation = replace(SITUATION, parent=PLAN.blueprint, nodes=nodes)
    child = replace(
        PLAN.blueprint, generation=2, parent_id=PLAN.blueprint.blueprint_id, replicas=PLAN.blueprint.replicas[1:]
    )
    assert any("taken away without a successor" in f for f in check(situation, child, PLAN.explanations))


def test_waiting_for_each_other_is_found() -> None:
    a, b = wish("a"), wish("b")
    situation = world(a, b, nodes=(node(cores=2),))
    plan = make_plan(situation)
    one, two = plan.blueprint.replicas

    def moved(replica: Replica, to: Replica) -> Replica:
        return replace(replica, replica_id=f"{replica.replica_id}x", partition=to.partition)

    later = replace(situation, parent=plan.blueprint)
    leaving = (replace(one, hold=True), replace(two, hold=True))
    child = Blueprint("x", 2, plan.blueprint.blueprint_id, (moved(one, two), moved(two, one)), leaving)
    assert any("wait for each other" in f for f in check(later, child, plan.explanations))


def test_variants_that_were_never_checked_serve_only_when_pinned() -> None:
    unchecked = variant("fast", admission=Admission.UNCHECKED)
    catalog = replace(SITUATION.catalog, variants=(unchecked,))
    pinned = wish(pinned_variant_id=unchecked.variant_id)
    plan = make_plan(world(pinned, catalog=catalog))
    assert plan.explanations[0].feasible
    assert check(world(pinned, catalog=catalog), plan.blueprint, plan.explanations) == ()
    assert not make_plan(world(wish(), catalog=catalog)).explanations[0].feasible
