"""The child blueprint of a layout: new replicas with names of their own, leaving ones with their intent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from services.orchestrator.core.facts.blueprint import Blueprint, Fallback, Replica, child_of
from services.orchestrator.core.facts.fleet import DEFAULT_POWER, NodeState, PowerSetting, ReplicaReport, ReplicaState
from services.orchestrator.core.facts.levers import Levers
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.variant import Admission
from services.orchestrator.core.facts.wish import Deployment, Metric
from services.orchestrator.core.planning.accept import Accepted
from services.orchestrator.core.planning.ground import Base, Ground, base_of

# Capacities are told to so many digits: more of them are noise, and would make every plan a change.
_CAPACITY_DIGITS: Final = 3

_ALIVE: Final = (ReplicaState.STARTING, ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.DRAINED)


def blueprint_of_layout(situation: Situation, ground: Ground, accepted: Accepted) -> Blueprint:
    """The next blueprint, or the parent itself when nothing changes."""
    parent, layout = situation.parent, accepted.layout
    generation = parent.generation + 1
    names = {d.deployment_id: d.name for d in situation.deployments}
    met = {item.deployment_id for share in accepted.mix.shares for item, _ in share.placed}
    wishes = {d.deployment_id: d for d in situation.deployments if d.deployment_id in met}
    chains = {d.deployment_id: d.chain for d in situation.deployments if d.chain}
    capacities = _capacities(accepted)
    power = {(node.node_id, d): setting for node in layout.nodes for d, setting in node.power_settings}
    replicas = []
    for kept in layout.kept:
        setting = power.get((kept.node_id, kept.partition.device_id), DEFAULT_POWER)
        capacity = capacities.get((kept.deployment_id, base_of(kept), setting), kept.capacity_requests_per_s)
        replicas.append(_limited(replace(kept, hold=False, capacity_requests_per_s=capacity), wishes, situation.levers))
    for number, place in enumerate(layout.places):
        item = place.item
        point = item.option.point
        replica = Replica(
            replica_id=f"{names[item.deployment_id]}-g{generation}-{number}",
            deployment_id=item.deployment_id,
            node_id=place.node_id,
            model_id=point.variant.model_id,
            variant_id=point.variant.variant_id,
            manifest=point.variant.manifest,
            partition=place.partition,
            batch_limit=point.batch_limit,
            device_class=point.profile.device_class,
            memory_bytes=point.memory_bytes,
            capacity_requests_per_s=capacities.get((item.deployment_id, item.base, item.power), 0.0),
            fallbacks=_fallbacks(situation, chains.get(item.deployment_id, ()), point.variant.variant_id),
        )
        replicas.append(_limited(replica, wishes, situation.levers))
    ordered = tuple(sorted(replicas, key=lambda r: (r.deployment_id, r.replica_id)))
    leaving = _leaving(situation, ground, ordered)
    layouts = layout.nodes
    if (ordered, leaving, layouts) == (parent.replicas, parent.leaving, parent.layouts):
        return parent
    return child_of(parent, ordered, leaving, layouts)


def _limited(replica: Replica, wishes: Mapping[str, Deployment], levers: Levers) -> Replica:
    """With the limits of its deployment as they are now; what meets none keeps those that it was planned for."""
    wish = wishes.get(replica.deployment_id)
    if wish is None:
        return replica
    return replace(
        replica,
        ttft_limit_ms=wish.slo.strictest_ms(Metric.TTFT),
        tpot_limit_ms=wish.token_limit_ms,
        pace_ms=wish.pace_ms if levers.pacing else 0.0,
    )


def _fallbacks(situation: Situation, chain: tuple[str, ...], variant_id: str) -> tuple[Fallback, ...]:
    """Links of a chain after the one planned that may serve; those before it were weighed and did not do."""
    later = chain[chain.index(variant_id) + 1 :] if variant_id in chain else ()
    found = (situation.catalog.variant(name) for name in later)
    return tuple(
        Fallback(v.variant_id, v.manifest)
        for v in found
        if v is not None and v.admission in (Admission.ADMITTED, Admission.UNCHECKED)
    )


def _capacities(accepted: Accepted) -> dict[tuple[str, Base, PowerSetting], float]:
    """Capacities of deployments with several options, which share requests by them; equal replicas need none."""
    found: dict[str, dict[tuple[Base, PowerSetting], float]] = defaultdict(dict)
    for share in accepted.mix.shares:
        for item, _ in share.placed:
            found[item.deployment_id][item.base, item.power] = float(f"{item.option.capacity:.{_CAPACITY_DIGITS}g}")
    return {
        (name, *key): capacity if len(options) > 1 else 0.0
        for name, options in found.items()
        for key, capacity in options.items()
    }


def _leaving(situation: Situation, ground: Ground, replicas: tuple[Replica, ...]) -> tuple[Replica, ...]:
    """What still has to end: earlier replicas that are not planned any more and are not known to have ended."""
    parent, wishes = situation.parent, {d.deployment_id for d in situation.deployments}
    planned, gone = {r.replica_id for r in replicas}, frozenset(situation.gone)
    reports = {(n.node_id, r.replica_id): r for n in situation.nodes for r in n.replicas}
    serving: dict[str, list[ReplicaReport | None]] = defaultdict(list)
    for replica in replicas:
        serving[replica.deployment_id].append(_heard(ground, reports, replica))
    leaving: list[Replica] = []
    for replica in (*parent.replicas, *parent.leaving):
        if replica.replica_id in planned or replica.replica_id in gone:
            continue
        wished = replica.deployment_id in wishes
        given_up = _given_up(ground, replica, serving[replica.deployment_id], wished=wished)
        if _still_there(ground, reports, replica) and not given_up:
            leaving.append(replace(replica, hold=wished))
    return tuple(sorted(leaving, key=lambda r: (r.deployment_id, r.replica_id)))


_Reports = dict[tuple[str, str], ReplicaReport]


def _heard(ground: Ground, reports: _Reports, replica: Replica) -> ReplicaReport | None:
    return reports.get((replica.node_id, replica.replica_id)) if replica.node_id in ground.nodes else None


def _still_there(ground: Ground, reports: _Reports, replica: Replica) -> bool:
    node = ground.nodes.get(replica.node_id)
    if node is None or node.state in (NodeState.LOST, NodeState.SUSPECT, NodeState.JOINING):
        return True
    report = reports.get((replica.node_id, replica.replica_id))
    return report is not None and report.state in _ALIVE


def _given_up(ground: Ground, replica: Replica, serving: list[ReplicaReport | None], *, wished: bool) -> bool:
    """Whether a replica that cannot be heard is not waited for: its deployment is gone, or its node is.

    One on a lost node stays, for the node may come back with requests at work on it.
    """
    node = ground.nodes.get(replica.node_id)
    if node is not None and (wished or node.state is not NodeState.LOST):
        return False
    if not wished:
        return True
    return bool(serving) and all(r is not None and r.state is ReplicaState.READY for r in serving)
