"""How much of a plan is done now, by the policy's bound on changes for savings, and the words for what waits. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from services.orchestrator.core.adaptation.pace import Place, pressing, recent
from services.orchestrator.core.adaptation.portion import Figures, Portion, changes_of, portion_of
from services.orchestrator.core.checking.check import check
from services.orchestrator.core.facts.blueprint import Blueprint, NodeLayout, child_of
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.planning.plan import Plan
from services.orchestrator.core.state import State


def portion_now(state: State, situation: Situation, planned: Situation, plan: Plan, now_s: float) -> Portion:
    """What of a plan is done now; all of it when everybody waits for it, or nothing adapts."""
    unmet = (e.deployment_id for e in state.explanations if not e.feasible)
    waited = pressing(state.acted, situation, unmet)
    if not state.policy.adaptive or waited is None:
        return Portion(plan.blueprint)
    bound = state.policy.bound
    room = bound.admits(_devices(situation)) - len(recent(state.savings, bound.window_s, now_s))
    return portion_of(
        situation.parent,
        plan.blueprint,
        Figures(plan.explanations),
        waited,
        max(room, 0),
        lambda blueprint: not check(planned, blueprint, plan.explanations),
    )


def cooling(plan: Plan, situation: Situation, planned: Situation, words: str) -> Plan:
    """What is done of a plan of savings while devices that it changes cool down: what puts nobody's requests at risk.

    So a board that the last saving emptied falls asleep at once, and not when the next one may come.

    Args:
        words: why the rest waits.
    """
    parent = situation.parent
    portion = portion_of(
        parent,
        plan.blueprint,
        Figures(plan.explanations),
        frozenset(),
        0,
        lambda blueprint: not check(planned, blueprint, plan.explanations),
    )
    # What is sound only as a whole waits as a whole.
    whole = portion.blueprint is plan.blueprint and any(name for name, _ in changes_of(parent, plan.blueprint))
    blueprint = parent if whole else portion.blueprint
    calmer = _asleep_meanwhile(blueprint, situation, portion.places)
    if situation.levers.consolidation and not check(planned, calmer, plan.explanations):
        blueprint = calmer
    explanations = tuple(
        replace(e, blueprint_id=blueprint.blueprint_id, summary=f"{e.summary} Not all of it is in force: {words}.")
        for e in plan.explanations
    )
    return replace(plan, blueprint=blueprint, explanations=explanations)


def bounded(
    state: State, situation: Situation, plan: Plan, portion: Portion, now_s: float
) -> tuple[Plan, float | None, str]:
    """The plan as far as the bound admits it, when there is room for more, and why it is not all of it."""
    bound, devices = state.policy.bound, _devices(situation)
    ends_s = [t.at_s + bound.window_s for t in recent(state.savings, bound.window_s, now_s)]
    due_s = min([*ends_s, *([now_s + bound.window_s] if portion.savings else [])], default=None)
    admitted, watts = bound.admits(devices), portion.waiting_mw / 1000.0
    words = (
        f"changes of {len(portion.places)} devices wait that would draw {abs(watts):.3g} W "
        f"{'more' if watts < 0.0 else 'less'} (modelled): at most {admitted} of {devices} change "
        f"for savings in {bound.window_s:.0f} s, {len(ends_s)} did, {len(portion.savings)} do now"
    )
    words += "; these change together or not at all" if due_s is None else f"; more may in {due_s - now_s:.0f} s"
    names = {name for name, _ in portion.waiting}
    explanations = tuple(
        replace(
            e,
            blueprint_id=portion.blueprint.blueprint_id,
            summary=f"{e.summary} Not all of it is in force: {words}." if e.deployment_id in names else e.summary,
        )
        for e in plan.explanations
    )
    return replace(plan, blueprint=portion.blueprint, explanations=explanations), due_s, f"a saving waits: {words}"


def _asleep_meanwhile(blueprint: Blueprint, situation: Situation, places: Iterable[Place]) -> Blueprint:
    """With those of these devices asleep that have nothing on them and may; what is planned for them wakes them."""
    used = {(r.node_id, r.partition.device_id) for r in (*blueprint.replicas, *blueprint.leaving)}
    may = {(node.node_id, d.device_id) for node in situation.nodes for d in node.devices if d.can_sleep}
    empty = {place for place in places if place in may - used}
    layouts = {layout.node_id: layout for layout in blueprint.layouts}
    for node_id, device_id in sorted(empty):
        layout = layouts.get(node_id) or NodeLayout(node_id)
        layouts[node_id] = replace(layout, asleep=tuple(sorted({*layout.asleep, device_id})))
    found = tuple(layouts[node_id] for node_id in sorted(layouts))
    if found == blueprint.layouts:
        return blueprint
    return child_of(situation.parent, blueprint.replicas, blueprint.leaving, found)


def _devices(situation: Situation) -> int:
    return sum(len(node.devices) for node in situation.nodes)
