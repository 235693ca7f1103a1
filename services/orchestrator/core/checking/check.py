"""An independent check of a plan before it is committed. Shares only the vocabulary with the planner, no code.

Every finding is a sentence; an empty answer is the only one that lets a plan be committed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations

from services.orchestrator.core.checking.layout import layout_findings
from services.orchestrator.core.checking.shared import shared_findings
from services.orchestrator.core.checking.wished import wished_findings
from services.orchestrator.core.facts.blueprint import Blueprint, Replica
from services.orchestrator.core.facts.explanation import Explanation
from services.orchestrator.core.facts.fleet import Device, NodeState, Partition, ReplicaState
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.variant import Admission
from services.orchestrator.core.facts.wish import Deployment


def check(situation: Situation, blueprint: Blueprint, explanations: tuple[Explanation, ...]) -> tuple[str, ...]:
    """Everything that is wrong with a plan.

    Args:
        situation: what it was made from.
        blueprint: the plan.
        explanations: its reports; they say which wishes are met.
    """
    findings = [
        *_lineage(situation, blueprint),
        *_room(situation, blueprint),
        *_nobody_forgotten(situation, blueprint),
        *layout_findings(situation, blueprint),
    ]
    wishes = {d.deployment_id: d for d in situation.deployments}
    power = {(node.node_id, device): setting for node in blueprint.layouts for device, setting in node.power_settings}
    feasible = frozenset(e.deployment_id for e in explanations if e.feasible)
    findings += shared_findings(situation, blueprint, feasible, power)
    look = _Look(situation, blueprint)
    for replica in blueprint.replicas:
        wish = wishes.get(replica.deployment_id)
        if wish is None:
            findings.append(f"{replica.replica_id} serves no deployment that is wished for")
        else:
            findings += _replica(look, replica, wish)
    met = {e.deployment_id: e for e in explanations}
    for wish in situation.deployments:
        if wish.deployment_id not in met:
            findings.append(f"{wish.name} has no explanation")
        elif met[wish.deployment_id].feasible:
            findings += wished_findings(situation, wish, tuple(look.of[wish.deployment_id]), power)
        else:
            new = [r.replica_id for r in look.of[wish.deployment_id] if look.is_new(r)]
            findings += [f"{name} is new though {wish.name} cannot be met" for name in new]
    return tuple(findings)


def _lineage(situation: Situation, blueprint: Blueprint) -> list[str]:
    parent = situation.parent
    if blueprint == parent:
        return []
    findings = []
    if blueprint.generation != parent.generation + 1 or blueprint.parent_id != parent.blueprint_id:
        findings.append(
            f"generation {blueprint.generation} does not follow {parent.generation} ({parent.blueprint_id})"
        )
    names = Counter(r.replica_id for r in (*blueprint.replicas, *blueprint.leaving))
    findings += [f"{name} appears twice" for name, count in sorted(names.items()) if count > 1]
    findings += [
        f"{r.replica_id} has ended and is used again" for r in blueprint.replicas if r.replica_id in situation.gone
    ]
    return findings


def _room(situation: Situation, blueprint: Blueprint) -> list[str]:
    findings = []
    serving, leaving = _by_device(blueprint.replicas), _by_device(blueprint.leaving)
    for here in serving.values():
        for a, b in combinations(here, 2):
            if _collide(a, b):
                findings.append(f"{a.replica_id} and {b.replica_id} overlap on {a.node_id} {a.partition.device_id}")
    waits = {
        (new.deployment_id, old.deployment_id)
        for place, here in serving.items()
        for new in here
        for old in leaving.get(place, ())
        if new.deployment_id != old.deployment_id and old.hold and _collide(new, old)
    }
    findings += [f"{a} and {b} wait for each other's cores" for a, b in sorted(waits) if _reaches(waits, b, a)]
    before = {r.replica_id for r in (*situation.parent.replicas, *situation.parent.leaving)}
    for node in situation.nodes:
        for device in node.devices:
            place = (node.node_id, device.device_id)
            here = [*serving.get(place, ()), *leaving.get(place, ())]
            wanted = sum(r.memory_bytes for r in here)
            if wanted > device.memory_bytes and any(r.replica_id not in before for r in here):
                findings.append(f"{wanted} bytes on {node.node_id} {device.device_id}, it has {device.memory_bytes}")
    return findings


def _nobody_forgotten(situation: Situation, blueprint: Blueprint) -> list[str]:
    """A replica that answers for a wish may only leave as one that holds until it is replaced; one that leaves is known
    until it has ended."""
    findings = []
    wishes = {d.deployment_id for d in situation.deployments}
    ready = {r.replica_id for n in situation.nodes for r in n.replicas if r.state is ReplicaState.READY}
    held = {r.replica_id for r in blueprint.leaving if r.hold} | {r.replica_id for r in blueprint.replicas}
    lost_nodes = {n.node_id for n in situation.nodes if n.state is NodeState.LOST}
    known_nodes = {n.node_id for n in situation.nodes}
    for replica in situation.parent.replicas:
        lost = replica.node_id in lost_nodes or replica.node_id not in known_nodes
        if (
            replica.deployment_id in wishes
            and replica.replica_id in ready
            and replica.replica_id not in held
            and not lost
        ):
            findings.append(f"{replica.replica_id} is ready and taken away without a successor")
    there = {r.replica_id for r in (*blueprint.replicas, *blueprint.leaving)} | set(situation.gone)
    at_work = {
        r.replica_id
        for n in situation.nodes
        if n.state is not NodeState.LOST
        for r in n.replicas
        if r.state in (ReplicaState.READY, ReplicaState.DRAINING)
    }
    forgotten = (r.replica_id for r in situation.parent.leaving if r.replica_id in at_work - there)
    return [*findings, *(f"{name} leaves, is still at work and is forgotten" for name in forgotten)]


class _Look:
    """A situation and a plan, indexed."""

    def __init__(self, situation: Situation, blueprint: Blueprint) -> None:
        self.variants = {variant.variant_id: variant for variant in situation.catalog.variants}
        self.nodes = {node.node_id: node for node in situation.nodes}
        self.before = {r.replica_id for r in (*situation.parent.replicas, *situation.parent.leaving)}
        self.of: dict[str, list[Replica]] = defaultdict(list)
        for replica in blueprint.replicas:
            self.of[replica.deployment_id].append(replica)
        self.partitions = {
            (layout.node_id, partition.partition_id): partition.kind
            for layout in blueprint.layouts
            for partition in layout.partitions
        }

    def is_new(self, replica: Replica) -> bool:
        """Whether the plan starts it."""
        return replica.replica_id not in self.before


def _replica(look: _Look, replica: Replica, wish: Deployment) -> list[str]:
    name, findings = replica.replica_id, []
    variant = look.variants.get(replica.variant_id)
    if look.is_new(replica):
        if variant is None or variant.model_id != wish.model_id or variant.manifest != replica.manifest:
            return [f"{name} runs {replica.variant_id}, which is no variant of its deployment's model"]
        named = variant.variant_id in (wish.pinned_variant_id, *wish.chain)
        if variant.admission is not Admission.ADMITTED and not (named and variant.admission is Admission.UNCHECKED):
            findings.append(f"{name} runs {variant.name}, which is {variant.admission}")
        findings += _fallback_findings(look, replica, wish)
    node = look.nodes.get(replica.node_id)
    if node is None:
        return [*findings, f"{name} is on {replica.node_id}, which is not known"]
    if node.state in (NodeState.LOST, NodeState.DRAINING, NodeState.DRAINED):
        findings.append(f"{name} is on {node.node_id}, which is {node.state}")
    if look.is_new(replica) and node.state is not NodeState.ACTIVE:
        findings.append(f"{name} is new on {node.node_id}, which is {node.state}")
    labels = dict(node.labels)
    for key, value in wish.node_selector:
        if labels.get(key) != value:
            findings.append(f"{name} is on {node.node_id} without the label {key}={value}")
    device = next((d for d in node.devices if d.device_id == replica.partition.device_id), None)
    if device is None or device.device_class != replica.device_class:
        return [*findings, f"{name} is on {replica.partition.device_id}, which is no {replica.device_class}"]
    cpu_ids = replica.partition.cpu_ids
    if device.cpu_ids:
        if len(set(cpu_ids)) != len(cpu_ids) or any(cpu not in device.cpu_ids for cpu in cpu_ids) or not cpu_ids:
            findings.append(f"{name} has cores {cpu_ids}, the device {device.cpu_ids}")
        if replica.partition.kind != f"cpu/{len(cpu_ids)}":
            findings.append(f"{name} has {len(cpu_ids)} cores, its kind is {replica.partition.kind}")
    else:
        standing = {partition.partition_id: partition.kind for partition in device.partitions}
        kind = look.partitions.get((node.node_id, replica.partition.partition_id)) or standing.get(
            replica.partition.partition_id
        )
        if kind is None:
            findings.append(f"{name} is on {replica.partition.partition_id}, which does not exist")
        elif kind != replica.partition.kind:
            findings.append(f"{name} is on a {kind}, its kind is {replica.partition.kind}")
        most = _most_bytes(device, replica.partition)
        if look.is_new(replica) and 0 < most < replica.memory_bytes:
            findings.append(
                f"{name} needs {replica.memory_bytes} bytes, {replica.partition.partition_id} has {most} of them"
            )
    return findings


def _most_bytes(device: Device, partition: Partition) -> int:
    """Memory of a slice by what its board reports, the larger figure where two are known; 0 when none is."""
    offered = (kind.memory_bytes for kind in device.table if kind.kind == partition.kind)
    standing = (one.memory_bytes for one in device.partitions if one.partition_id == partition.partition_id)
    return max((*offered, *standing), default=0)


def _fallback_findings(look: _Look, replica: Replica, wish: Deployment) -> list[str]:
    """A replica may fall back to later links of its wish's chain, in their order, and to nothing else."""
    order = [replica.variant_id, *(fallback.variant_id for fallback in replica.fallbacks)]
    places = [wish.chain.index(name) if name in wish.chain else -1 for name in order]
    if replica.fallbacks and (-1 in places or places != sorted(set(places))):
        return [f"{replica.replica_id} may fall back to variants that are no later links of its chain"]
    return [
        f"{replica.replica_id} may fall back to {fallback.variant_id}, which may not serve"
        for fallback in replica.fallbacks
        if (variant := look.variants.get(fallback.variant_id)) is None
        or variant.manifest != fallback.manifest
        or variant.admission not in (Admission.ADMITTED, Admission.UNCHECKED)
    ]


def _by_device(replicas: tuple[Replica, ...]) -> dict[tuple[str, str], list[Replica]]:
    found: dict[tuple[str, str], list[Replica]] = defaultdict(list)
    for replica in replicas:
        found[replica.node_id, replica.partition.device_id].append(replica)
    return found


def _collide(a: Replica, b: Replica) -> bool:
    if (a.node_id, a.partition.device_id) != (b.node_id, b.partition.device_id):
        return False
    if a.partition.cpu_ids and b.partition.cpu_ids:
        return not set(a.partition.cpu_ids).isdisjoint(b.partition.cpu_ids)
    return a.partition.partition_id == b.partition.partition_id


def _reaches(edges: set[tuple[str, str]], start: str, end: str) -> bool:
    frontier, seen = [start], [start]
    while frontier:
        here = frontier.pop()
        if here == end:
            return True
        for a, b in sorted(edges):
            if a == here and b not in seen:
                seen.append(b)
                frontier.append(b)
    return False
