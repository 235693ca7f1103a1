"""Plans that people ask for: what they asked for is done at once, the savings that come with it are bounded. Pure.

Both count in the window of the bound, so that savings right after do not add to what people changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.orchestrator.core.adaptation.adapt import anticipated
from services.orchestrator.core.adaptation.pace import Place, changed_places, pressing, touched
from services.orchestrator.core.adaptation.portion import Figures, changes_of, portion_of
from services.orchestrator.core.bounding import NOTHING_COUNTED, Counted, bounded, counted
from services.orchestrator.core.checking.check import check
from services.orchestrator.core.facts.blueprint import Blueprint
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.planning.plan import Plan
from services.orchestrator.core.state import Observation, State
from services.orchestrator.core.step import nodes_now, situation_of


@dataclass(frozen=True, slots=True)
class Asked:
    """Inputs of a decision that somebody asked for.

    Attributes:
        waited: deployments that somebody waits for, by id; None for all.
        counted: what changed lately.
    """

    situation: Situation
    waited: tuple[str, ...] | None = None
    counted: Counted = NOTHING_COUNTED


def asked_of(state: State, seen: Observation, wanted: Observation, about: str, now_s: float) -> Asked:
    """A request about a deployment, or none (""), by what is seen without it and with it."""
    before = situation_of(state, seen, nodes_now(state, seen, now_s), now_s)
    # A demand that is stated now is planned for now, and not what was provisioned for the wish before it.
    ahead = anticipated(state.learnt, wanted.deployments, about, wanted.traffic, now_s)
    asked = situation_of(replace(state, learnt=ahead), wanted, nodes_now(state, wanted, now_s), now_s)
    unmet = [e.deployment_id for e in state.explanations if not e.feasible]
    # Also what the loop has not come to yet, a load that rises or a node that was lost, is waited for.
    now, late = pressing(before, asked, unmet), pressing(state.acted, asked, unmet)
    waited = None if now is None or late is None or not state.policy.adaptive else tuple(sorted(now | late))
    return Asked(asked, waited, counted(state, now_s))


def granted(asked: Asked, plan: Plan) -> tuple[Plan, tuple[Place, ...]]:
    """What of a plan is done at once, and the devices that it changes for savings."""
    situation, waited = asked.situation, asked.waited
    if waited is None:
        return plan, ()
    needed = {place for name, place in changes_of(situation.parent, plan.blueprint) if name in waited}
    lately = asked.counted
    done = replace(lately, changed=touched(lately.changed, needed, lately.now_s, lately.bound.window_s))
    portion = portion_of(
        situation.parent,
        plan.blueprint,
        Figures(plan.explanations),
        frozenset(waited),
        done.room(situation),
        lambda blueprint: not check(situation, blueprint, plan.explanations),
    )
    if portion.waiting:
        plan, _, _ = bounded(done, situation, plan, portion)
    return plan, portion.savings


def after_asked(state: State, before: Blueprint, after: Plan, saving: tuple[Place, ...], now_s: float) -> State:
    """The state once such a plan is in force; all of its devices count in the window."""
    places = changed_places(before, after.blueprint)
    counts = touched(state.savings, places, now_s, state.policy.bound.window_s)
    return replace(state, explanations=after.explanations, asked=True, saving=saving, savings=counts)
