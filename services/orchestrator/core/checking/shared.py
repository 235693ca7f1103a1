"""Part of the independent check: what deployments share. Trust on boards, failure domains, power budgets."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Final

from services.orchestrator.core.checking.slo import least_active_mw
from services.orchestrator.core.facts.blueprint import Blueprint, Replica
from services.orchestrator.core.facts.fleet import PowerSetting
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Deployment

# Sums of modelled powers may differ by this share before it is a finding.
_TOLERANCE: Final = 0.02


def shared_findings(
    situation: Situation, blueprint: Blueprint, met: frozenset[str], power: dict[tuple[str, str], PowerSetting]
) -> list[str]:
    """Everything that is wrong with what is shared.

    Args:
        met: deployments that the plan says it meets.
        power: settings that devices shall have.
    """
    before = {r.replica_id for r in (*situation.parent.replicas, *situation.parent.leaving)}
    new = [r for r in blueprint.replicas if r.replica_id not in before]
    findings = _trust(situation, blueprint, new)
    for wish in situation.deployments:
        if wish.deployment_id in met and wish.spread is not None:
            findings += _spread(situation, wish, blueprint.of(wish.deployment_id))
    return findings + (_budgets(situation, blueprint, new, power) if new else [])


def _trust(situation: Situation, blueprint: Blueprint, new: list[Replica]) -> list[str]:
    levels = {wish.deployment_id: wish.trust_level for wish in situation.deployments}
    if len(set(levels.values())) < 2:
        return []
    boards: dict[tuple[str, str], set[str]] = defaultdict(set)
    for replica in (*blueprint.replicas, *blueprint.leaving):
        if replica.replica_id not in situation.gone and replica.deployment_id in levels:
            boards[replica.node_id, replica.partition.device_id].add(levels[replica.deployment_id])
    return [
        f"{replica.replica_id} shares {replica.node_id} {replica.partition.device_id} with another trust level"
        for replica in new
        if len(boards[replica.node_id, replica.partition.device_id]) > 1
    ]


def _spread(situation: Situation, wish: Deployment, replicas: tuple[Replica, ...]) -> list[str]:
    assert wish.spread is not None
    label, least = wish.spread.label, wish.spread.domains
    domains = {
        node.node_id: node.node_id if label == "node" else dict(node.labels).get(label, "") for node in situation.nodes
    }
    counts = Counter(domains.get(replica.node_id, "") for replica in replicas)
    if counts[""]:
        return [f"{wish.name} has {counts['']} replicas on nodes without the label {label}"]
    if len(counts) < least:
        return [f"{wish.name} is in {len(counts)} domains of {label}, at least {least} are wished"]
    share = math.ceil(len(replicas) / least)
    return [
        f"{wish.name} has {count} of {len(replicas)} replicas in {label} {domain}, at most {share} may be"
        for domain, count in sorted(counts.items())
        if count > share
    ]


def _budgets(
    situation: Situation, blueprint: Blueprint, new: list[Replica], power: dict[tuple[str, str], PowerSetting]
) -> list[str]:
    """Budgets that new work goes beyond, by the least that everything can draw."""
    if not situation.budgets:
        return []
    asleep = {(layout.node_id, device_id) for layout in blueprint.layouts for device_id in layout.asleep}
    draws: list[tuple[str, str, float]] = []
    for node in situation.nodes:
        for device in node.devices:
            sleeps = (node.node_id, device.device_id) in asleep
            draws.append((node.node_id, device.device_id, device.least_power_mw if sleeps else device.idle_power_mw))
    for wish in situation.deployments:
        mine = blueprint.of(wish.deployment_id)
        if mine:
            active = least_active_mw(situation, wish, mine, power)
            draws += [(r.node_id, r.partition.device_id, mw) for r, mw in zip(mine, active, strict=True)]
    findings = []
    for budget in situation.budgets:
        scope, _, rest = budget.scope.partition("/")
        node_id, _, device_id = rest.partition("/")

        def inside(node: str, device: str, scope: str = scope, node_id: str = node_id, own: str = device_id) -> bool:
            return scope == "site" or (node == node_id and (scope == "node" or device == own))

        drawn = sum(mw for node, device, mw in draws if inside(node, device))
        placed = any(inside(replica.node_id, replica.partition.device_id) for replica in new)
        if placed and drawn > budget.limit_mw * (1.0 + _TOLERANCE):
            findings.append(f"{budget.scope} would draw at least {drawn:.4g} mW, {budget.limit_mw:.4g} mW is the most")
    return findings
