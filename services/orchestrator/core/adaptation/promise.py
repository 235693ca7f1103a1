"""What a plan promises to save, in power: the modelled figures that a trial holds a change against. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.orchestrator.core.adaptation.provision import Provision
from services.orchestrator.core.adaptation.trial import LIKE_LOAD
from services.orchestrator.core.facts.blueprint import Blueprint
from services.orchestrator.core.facts.explanation import Explanation
from services.orchestrator.core.facts.fleet import Node
from services.orchestrator.core.facts.wish import Deployment


@dataclass(frozen=True, slots=True)
class Told:
    """What a plan said that a deployment draws (modelled), at which mean load."""

    deployment_id: str
    requests_per_s: float
    power_mw: float


def told_of(
    wishes: tuple[Deployment, ...], provisions: tuple[Provision, ...], explanations: tuple[Explanation, ...]
) -> dict[str, Told]:
    """What a plan says of each deployment it explains, by its id, at the demand it was provisioned for."""
    demands = {w.deployment_id: w.demand for w in wishes}
    demands |= {p.deployment_id: p.demand for p in provisions if p.deployment_id in demands}
    drawn = {e.deployment_id: sum(c.power_mw for c in e.candidates if c.chosen) for e in explanations}
    return {
        name: Told(name, demand.compared_requests_per_s, drawn[name])
        for name, demand in demands.items()
        if drawn.get(name)
    }


def promised_mw(
    deployment_id: str,
    before: Blueprint,
    explanations: tuple[Explanation, ...],
    told: Told | None,
    now: Told | None,
) -> float | None:
    """Change of power that the plan promised, modelled: the chosen option against the old, both at the planned load.

    Where the old option is not weighed any more, what the plan before it said, if that was of a like load.
    """
    explanation = next((e for e in explanations if e.deployment_id == deployment_id), None)
    old = before.of(deployment_id)
    if explanation is None or explanation.chosen is None or not old:
        return None
    power = before.power_of(old[0].node_id, old[0].partition.device_id)
    mine = (old[0].variant_id, old[0].device_class, old[0].partition.kind, power)
    for c in explanation.candidates:
        is_mine = (c.variant_id, c.device_class, c.partition_kind, c.power) == mine
        if is_mine and not c.refusal and c.power_mw > 0.0:
            return explanation.chosen.power_mw - c.power_mw
    if told is None or now is None or not 1.0 - LIKE_LOAD < now.requests_per_s / told.requests_per_s < 1.0 + LIKE_LOAD:
        return None
    return now.power_mw - told.power_mw


def slept_mw(before: Blueprint, after: Blueprint, nodes: tuple[Node, ...]) -> float:
    """Idle power that devices save which sleep now and had work before, less that of those that wake."""
    devices = {(n.node_id, d.device_id): d for n in nodes for d in n.devices}
    was, now = ({(layout.node_id, name) for layout in b.layouts for name in layout.asleep} for b in (before, after))
    saved = sum(d.idle_power_mw - d.least_power_mw for place, d in devices.items() if place in now - was)
    return saved - sum(d.idle_power_mw - d.least_power_mw for place, d in devices.items() if place in was - now)
