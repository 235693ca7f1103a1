"""From a blueprint and what nodes report to whole targets and routes, make-before-break. Pure and level-triggered.

    new replica in the target → READY → routed → old left out of routes → (settle) → DRAIN → DRAINED or gone → out

- An old replica serves until every new one of its deployment is READY; a new one that fails takes nothing away.
- A new replica whose cores a leaving replica of another deployment still has is not in the target yet.
- What has ended stays ended: `RolloutMemory.gone` only grows while the replica is in the blueprint.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.orchestrator.core.blueprint import Blueprint, Replica
from services.orchestrator.core.fleet import Node, NodeState, ReplicaState

# Gateways take up a new routing table within this time; an old replica is drained no earlier after it left the table.
ROUTE_SETTLE_S: Final = 1.0

_ENDED = (ReplicaState.DRAINED, ReplicaState.FAILED, ReplicaState.STOPPING)


class Intent(StrEnum):
    """What a replica shall do."""

    SERVE = "serve"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class RolloutMemory:
    """What a rollout remembers between looks.

    Attributes:
        unrouted: leaving replicas that are out of the routes, and since when.
        gone: leaving replicas that have ended.
    """

    unrouted: tuple[tuple[str, float], ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """Everything a node shall run."""

    node_id: str
    replicas: tuple[tuple[Replica, Intent], ...]


@dataclass(frozen=True, slots=True)
class Rollout:
    """One look's result. Routes are by deployment id; a deployment without a ready replica has an empty route."""

    targets: tuple[Target, ...]
    routes: tuple[tuple[str, tuple[Replica, ...]], ...]
    memory: RolloutMemory


def roll_out(blueprint: Blueprint, nodes: tuple[Node, ...], memory: RolloutMemory, now_s: float) -> Rollout:
    """Targets of all nodes in the blueprint or connected, and routes of all deployments in the blueprint."""
    sight = _Sight(nodes)
    since = dict(memory.unrouted)
    gone = [name for name in memory.gone if any(r.replica_id == name for r in blueprint.leaving)]
    wanted: list[tuple[Replica, Intent]] = []
    unrouted: list[tuple[str, float]] = []
    routes: list[tuple[str, tuple[Replica, ...]]] = []
    for deployment_id in sorted({r.deployment_id for r in (*blueprint.replicas, *blueprint.leaving)}):
        new = blueprint.of(deployment_id)
        settled = bool(new) and all(sight.state(r) is ReplicaState.READY for r in new)
        routed = [r for r in new if sight.serves(r)]
        for old in blueprint.leaving_of(deployment_id):
            replaced = settled or not old.hold
            if old.replica_id in gone:
                continue
            if not replaced:
                wanted.append((old, Intent.SERVE))
                routed += [old] if sight.serves(old) else []
            elif sight.ended(old):
                gone.append(old.replica_id)
            else:
                out_s = since.get(old.replica_id, now_s)
                unrouted.append((old.replica_id, out_s))
                wanted.append((old, Intent.DRAIN if now_s - out_s >= ROUTE_SETTLE_S else Intent.SERVE))
        routes.append((deployment_id, tuple(routed)))
    blocking = [r for r in blueprint.leaving if r.replica_id not in gone]
    wanted += [(r, Intent.SERVE) for r in blueprint.replicas if not _must_wait(r, blocking, sight)]
    names = sorted({n.node_id for n in nodes} | {r.node_id for r, _ in wanted})
    targets = tuple(Target(name, _sorted([w for w in wanted if w[0].node_id == name])) for name in names)
    return Rollout(targets, tuple(routes), RolloutMemory(tuple(sorted(unrouted)), tuple(sorted(gone))))


class _Sight:
    """What can be seen of replicas."""

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        self._nodes = {node.node_id: node for node in nodes}
        self._reports = {(n.node_id, r.replica_id): r.state for n in nodes for r in n.replicas}

    def state(self, replica: Replica) -> ReplicaState | None:
        """State last reported, None when it is not there or its node is lost."""
        node = self._nodes.get(replica.node_id)
        if node is None or node.state is NodeState.LOST:
            return None
        return self._reports.get((replica.node_id, replica.replica_id))

    def serves(self, replica: Replica) -> bool:
        """Whether it may be routed to. A node that is merely late goes on serving."""
        return self.state(replica) is ReplicaState.READY

    def ended(self, replica: Replica) -> bool:
        """Whether it is known to have ended; of a node that cannot be heard nothing is known."""
        node = self._nodes.get(replica.node_id)
        if node is None or node.state in (NodeState.LOST, NodeState.SUSPECT, NodeState.JOINING):
            return False
        state = self.state(replica)
        return state is None or state in _ENDED

    def present(self, replica: Replica) -> bool:
        """Whether its node reports it, or cannot be heard."""
        node = self._nodes.get(replica.node_id)
        if node is None or node.state in (NodeState.LOST, NodeState.SUSPECT, NodeState.JOINING):
            return True
        return self.state(replica) is not None


def _must_wait(replica: Replica, leaving: list[Replica], sight: _Sight) -> bool:
    """Whether another deployment's leaving replica still has some of its cores."""
    if sight.state(replica) is not None:
        return False
    return any(
        old.deployment_id != replica.deployment_id and _share_units(old, replica) and sight.present(old)
        for old in leaving
    )


def _share_units(a: Replica, b: Replica) -> bool:
    if a.node_id != b.node_id or a.partition.device_id != b.partition.device_id:
        return False
    same = a.partition.partition_id == b.partition.partition_id
    return same or any(cpu in b.partition.cpu_ids for cpu in a.partition.cpu_ids)


def _sorted(wanted: list[tuple[Replica, Intent]]) -> tuple[tuple[Replica, Intent], ...]:
    return tuple(sorted(wanted, key=lambda pair: pair[0].replica_id))
