"""Rules of a wish, one by one: a plan that is right, and one fact of the wish or the fleet by which it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from services.orchestrator.core.checking.check import check
from services.orchestrator.core.facts.fleet import Budget
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Deployment, Spread
from services.orchestrator.core.planning.plan import make_plan
from tests.orchestrator.worlds import node, slo, wish, world

RACKS = (node("n1", labels=(("rack", "a"),)), node("n2", labels=(("rack", "b"),)))
LIMITS = slo(ttft=2000, tpot=400, e2e=9000, energy_per_token_mj=900, power_mw=90_000, availability=0.999)
CHAT = wish(rate=1.0, slo=LIMITS, spread=Spread("rack", 2), min_replicas=2)
CODE = wish("code", rate=0.2)
SITUATION = world(CHAT, CODE, nodes=RACKS, budgets=(Budget("site", 100_000.0),))
PLAN = make_plan(SITUATION)

Fact = Callable[[Situation], Situation]


def chat(**changes: object) -> Fact:
    """Another wish for the first deployment."""

    def fact(situation: Situation) -> Situation:
        first, *rest = situation.deployments
        return replace(situation, deployments=(_changed(first, changes), *rest))

    return fact


def _changed(deployment: Deployment, changes: dict[str, object]) -> Deployment:
    slos = {key: value for key, value in changes.items() if hasattr(deployment.slo, key)}
    lengths = {key: value for key, value in changes.items() if hasattr(deployment.demand, key)}
    others = {key: value for key, value in changes.items() if key not in slos and key not in lengths}
    mine = replace(deployment, slo=replace(deployment.slo, **slos), demand=replace(deployment.demand, **lengths))  # type: ignore[arg-type]
    return replace(mine, **others)  # type: ignore[arg-type]


def budget(scope: str) -> Fact:
    return lambda situation: replace(situation, budgets=(Budget(scope, 10_100.0),))


def one_rack(situation: Situation) -> Situation:
    return replace(situation, nodes=tuple(replace(n, labels=(("rack", "a"),)) for n in situation.nodes))


def no_rack(situation: Situation) -> Situation:
    return replace(situation, nodes=tuple(replace(n, labels=()) for n in situation.nodes))


def short_context(situation: Situation) -> Situation:
    variants = tuple(replace(v, context_tokens=100) for v in situation.catalog.variants)
    return replace(situation, catalog=replace(situation.catalog, variants=variants))


RULES: list[tuple[str, Fact]] = [
    ("with another trust level", chat(trust_level="red")),
    ("is in 1 domains of rack, at least 2", one_rack),
    ("without the label rack", no_rack),
    ("is in 2 domains of rack, at least 3", chat(spread=Spread("rack", 3))),
    ("site would draw at least", budget("site")),
    ("node/n1 would draw at least", budget("node/n1")),
    ("device/n1/cpu0 would draw at least", budget("device/n1/cpu0")),
    ("TTFT within 50 ms", chat(latency=slo(ttft=50).latency)),
    ("TPOT within 5 ms", chat(latency=slo(tpot=5).latency)),
    ("E2E within 300 ms", chat(latency=slo(e2e=300).latency)),
    ("mJ a token, 10 is the most", chat(energy_per_token_mj=10.0)),
    ("chat draws at least", chat(power_mw=100.0)),
    ("of the time with", chat(availability=0.9999999)),
    ("of top-1 tokens, 0.999 is the floor", chat(min_top1_agreement=0.999)),
    ("raises perplexity", chat(max_perplexity_increase=0.001)),
    ("another variant than the pinned", chat(pinned_variant_id="sha256:else")),
    ("at most 1 are wished", chat(max_replicas=1)),
    ("at least 9 are wished", chat(min_replicas=9)),
    ("without the label zone=x", chat(node_selector=(("zone", "x"),))),
    ("tokens of context", short_context),
]


def test_the_plan_itself_is_right() -> None:
    assert check(SITUATION, PLAN.blueprint, PLAN.explanations) == ()
    assert all(e.feasible for e in PLAN.explanations), [e.summary for e in PLAN.explanations]


@pytest.mark.parametrize("rule", RULES, ids=[words for words, _ in RULES])
def test_one_fact_makes_it_wrong_and_is_named(rule: tuple[str, Fact]) -> None:
    words, fact = rule
    findings = check(fact(SITUATION), PLAN.blueprint, PLAN.explanations)
    assert any(words in finding for finding in findings), findings
