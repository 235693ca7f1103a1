"""Plans under power budgets: what draws less is found, running work moves, what goes on counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.orchestrator.core.checking.check import check
from services.orchestrator.core.facts.fleet import Budget
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Objective
from services.orchestrator.core.planning.plan import Plan, make_plan
from tests.orchestrator.worlds import node, ready, wish, world

# A node of these worlds idles at 10 W; a request a second takes "fast" 13 W and "lean" 6 to 8 W more.
CHAT = wish(rate=1.0, objective=Objective.LATENCY)


def planned(situation: Situation, *budgets: Budget) -> Plan:
    """The plan under budgets; it passes the independent check."""
    limited = replace(situation, budgets=budgets)
    plan = make_plan(limited)
    assert check(limited, plan.blueprint, plan.explanations) == ()
    return plan


def running(situation: Situation, plan: Plan) -> Situation:
    """The world once a plan is rolled out."""
    nodes = tuple(
        replace(n, replicas=tuple(ready(r.replica_id) for r in plan.blueprint.replicas if r.node_id == n.node_id))
        for n in situation.nodes
    )
    return replace(situation, nodes=nodes, parent=plan.blueprint)


def variants(plan: Plan, name: str = "chat") -> set[str]:
    """What serves a deployment."""
    return {r.variant_id.removeprefix("sha256:") for r in plan.blueprint.of(f"d-{name}")}


@pytest.mark.parametrize("scope", ["site", "node/n1", "device/n1/cpu0"])
def test_running_work_moves_to_what_a_lower_budget_allows(scope: str) -> None:
    situation = world(CHAT)
    at_first = planned(situation)
    assert variants(at_first) == {"fast"}
    assert variants(planned(situation, Budget(scope, 20_000.0))) == {"lean"}, "whatever the objective asks"
    situation = running(situation, at_first)
    assert variants(planned(situation, Budget(scope, 30_000.0))) == {"fast"}
    assert variants(planned(situation, Budget(scope, 20_000.0))) == {"lean"}
    lately = replace(situation, settled=("d-chat",))
    assert variants(planned(lately, Budget(scope, 20_000.0))) == {"lean"}, "a cool-down holds savings back, not limits"


def test_what_fits_nowhere_goes_on_and_is_told_the_budget_that_would_do() -> None:
    situation = running(world(CHAT), planned(world(CHAT)))
    limits = Budget("node/n1", 15_000.0), Budget("site", 900_000.0)
    plan = planned(situation, *limits)
    assert variants(plan) == {"fast"}
    explanation = plan.explanation_of("d-chat")
    assert explanation.binding_limit == "POWER_BUDGET"
    _, _, words = explanation.summary.partition("leaves no room for it; ")
    watts = float(words.split(" W for node/n1 would do")[0])
    assert 16.0 < watts < 17.0
    assert variants(planned(situation, Budget("node/n1", watts * 1000.0))) == {"lean"}
    assert variants(planned(situation, Budget("node/n1", watts * 980.0))) == {"fast"}, "it is the least"


def test_running_work_over_its_budget_leaves_nothing_for_others() -> None:
    first = running(world(CHAT), planned(world(CHAT)))
    other = wish("other", rate=0.2)
    situation = replace(first, deployments=(CHAT, other))
    plan = planned(situation, Budget("site", 15_500.0))
    assert variants(plan) == {"fast"}
    assert not variants(plan, "other"), "1.6 W of it would fit if chat did not draw"
    assert variants(planned(situation, Budget("site", 26_000.0)), "other")


def test_a_budget_below_what_a_node_draws_anyhow_closes_that_node_only() -> None:
    situation = world(CHAT, nodes=(node("n1"), node("n2")))
    plan = planned(situation, Budget("node/n1", 5_000.0))
    assert {r.node_id for r in plan.blueprint.replicas} == {"n2"}
