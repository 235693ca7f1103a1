"""What of a plan of savings is done while devices that it changes cool down. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from services.orchestrator.core.adaptation.pace import Place
from services.orchestrator.core.adaptation.portion import Figures, changes_of, portion_of
from services.orchestrator.core.checking.check import check
from services.orchestrator.core.facts.blueprint import Blueprint, NodeLayout, child_of
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.planning.plan import Plan


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
