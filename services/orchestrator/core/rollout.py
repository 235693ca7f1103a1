"""From a blueprint and what nodes report to whole targets and routes, make-before-break. Pure and level-triggered.

    new replica in the target → READY → routed → old left out of routes → (settle) → DRAIN → DRAINED or gone → out

- An old replica serves until every new one of its deployment is READY; a new one that fails takes nothing away.
- A new replica whose cores a leaving replica of another deployment still has is not in the target yet.
- What has ended stays ended: `RolloutMemory.gone` only grows while the replica is in the blueprint.
- An old replica of a deployment in danger or on trial stands by: drained and loaded, for at most `STAND_BY_S`, unless
  somebody waits for its room. In danger it serves again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.orchestrator.core.blueprint import Blueprint, Replica
from services.orchestrator.core.fleet import Node, NodeState, ReplicaState
from services.orchestrator.core.relief import NO_RELIEF, Relief, smaller_batch

# Gateways take up a new routing table within this time; an old replica is drained no earlier after it left the table.
ROUTE_SETTLE_S: Final = 1.0

# A standby holds its room so long at most: as long as the longest trial.
STAND_BY_S: Final = 600.0

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
    """One look's result. Routes are by deployment id; a deployment without a ready replica has an empty route.

    Attributes:
        limits: sequences together that a routed replica is given, where that is less than its batch limit.
    """

    targets: tuple[Target, ...]
    routes: tuple[tuple[str, tuple[Replica, ...]], ...]
    memory: RolloutMemory
    limits: tuple[tuple[str, int], ...] = ()


def roll_out(
    blueprint: Blueprint, nodes: tuple[Node, ...], memory: RolloutMemory, now_s: float, relief: Relief = NO_RELIEF
) -> Rollout:
    """Targets of all nodes in the blueprint or connected, and routes of all deployments in the blueprint."""
    walk = _Walk(blueprint, _Sight(nodes), memory, now_s, relief)
    routes = tuple((name, walk.route(name)) for name in walk.deployments)
    wanted = walk.targets()
    names = sorted({*(n.node_id for n in nodes), *wanted})
    targets = tuple(Target(name, _sorted(wanted.get(name, []))) for name in names)
    limits = tuple(
        (r.replica_id, smaller_batch(r.batch_limit)) for name, routed in routes if name in relief.small for r in routed
    )
    return Rollout(targets, routes, RolloutMemory(tuple(sorted(walk.unrouted)), tuple(sorted(walk.gone))), limits)


class _Walk:
    """One look over a blueprint: what each replica shall do. Lives for one call."""

    def __init__(
        self, blueprint: Blueprint, sight: _Sight, memory: RolloutMemory, now_s: float, relief: Relief
    ) -> None:
        self._sight, self._now_s, self._relief = sight, now_s, relief
        self._since = dict(memory.unrouted)
        self._new, self._leaving = _grouped(blueprint.replicas), _grouped(blueprint.leaving)
        leaving = {r.replica_id for r in blueprint.leaving}
        self.gone = {name for name in memory.gone if name in leaving}
        self.unrouted: list[tuple[str, float]] = []
        self.deployments = sorted({*self._new, *self._leaving})
        self._wanted: dict[str, list[tuple[Replica, Intent]]] = {}
        self._waiting = _by_device(r for r in blueprint.replicas if sight.state(r) is None)

    def route(self, deployment_id: str) -> tuple[Replica, ...]:
        """Replicas of one deployment to route to; decides on its leaving ones."""
        new = self._new.get(deployment_id, [])
        settled = bool(new) and all(self._sight.state(r) is ReplicaState.READY for r in new)
        routed = [r for r in new if self._sight.serves(r)]
        for old in self._leaving.get(deployment_id, []):
            if old.replica_id not in self.gone:
                routed += self._leave(old, replaced=settled or not old.hold)
        return tuple(routed)

    def targets(self) -> dict[str, list[tuple[Replica, Intent]]]:
        """What each node shall run, after every route was decided."""
        blocking = _by_device(r for group in self._leaving.values() for r in group if r.replica_id not in self.gone)
        for group in self._new.values():
            for r in group:
                place = (r.node_id, r.partition.device_id)
                if not _must_wait(r, blocking.get(place, []), self._sight):
                    self._want(r, Intent.SERVE)
        return self._wanted

    def _leave(self, old: Replica, *, replaced: bool) -> list[Replica]:
        if not replaced or self._is_woken(old):
            self._want(old, Intent.SERVE)
            return [old] if self._sight.serves(old) else []
        out_s = self._since.get(old.replica_id, self._now_s)
        if self._sight.ended(old) and not self._stands_by(old, out_s):
            self.gone.add(old.replica_id)
            return []
        self.unrouted.append((old.replica_id, out_s))
        self._want(old, Intent.DRAIN if self._now_s - out_s >= ROUTE_SETTLE_S else Intent.SERVE)
        return []

    def _is_woken(self, old: Replica) -> bool:
        if old.deployment_id not in self._relief.woken or not old.hold or self._is_waited_for(old):
            return False
        return self._sight.state(old) in (ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.DRAINED)

    def _stands_by(self, old: Replica, out_s: float) -> bool:
        if old.deployment_id not in self._relief.warm or not old.hold or self._now_s - out_s >= STAND_BY_S:
            return False
        return self._sight.state(old) is ReplicaState.DRAINED and not self._is_waited_for(old)

    def _is_waited_for(self, old: Replica) -> bool:
        waiting = self._waiting.get((old.node_id, old.partition.device_id), [])
        return any(r.deployment_id != old.deployment_id and _share_units(r, old) for r in waiting)

    def _want(self, replica: Replica, intent: Intent) -> None:
        self._wanted.setdefault(replica.node_id, []).append((replica, intent))


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


def _grouped(replicas: Iterable[Replica]) -> dict[str, list[Replica]]:
    groups: dict[str, list[Replica]] = {}
    for replica in replicas:
        groups.setdefault(replica.deployment_id, []).append(replica)
    return groups


def _by_device(replicas: Iterable[Replica]) -> dict[tuple[str, str], list[Replica]]:
    groups: dict[tuple[str, str], list[Replica]] = {}
    for replica in replicas:
        groups.setdefault((replica.node_id, replica.partition.device_id), []).append(replica)
    return groups


def _sorted(wanted: list[tuple[Replica, Intent]]) -> tuple[tuple[Replica, Intent], ...]:
    return tuple(sorted(wanted, key=lambda pair: pair[0].replica_id))
