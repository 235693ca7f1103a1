"""From a blueprint and what nodes report to whole targets and routes, make-before-break. Pure and level-triggered.

    new replica in the target → READY → routed → old left out of routes → (settle) → DRAIN → DRAINED or gone → out

- An old replica serves until every new one of its deployment is READY; a new one that fails takes nothing away.
- A new replica whose cores a leaving replica of another deployment still has is not in the target yet.
- A new replica whose slice is not made yet is not in the target; a slice in use stays in the layout (`slices.py`).
- What has ended stays ended: `RolloutMemory.gone` only grows while the replica is in the blueprint.
- An old replica of a deployment in danger or on trial stands by: drained and loaded, for at most `STAND_BY_S`, unless
  somebody waits for its room. In danger it serves again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from services.orchestrator.core.adaptation.relief import NO_RELIEF, Relief, smaller_batch
from services.orchestrator.core.facts.blueprint import Blueprint, NodeLayout, Replica
from services.orchestrator.core.facts.fleet import (
    DEFAULT_POWER,
    Node,
    Partition,
    PowerSetting,
    ReplicaState,
)
from services.orchestrator.core.rollout.sight import Sight
from services.orchestrator.core.rollout.slices import told_partitions, told_setting

# Gateways take up a new routing table within this time; an old replica is drained no earlier after it left the table.
ROUTE_SETTLE_S: Final = 1.0

# A standby holds its room so long at most: as long as the longest trial.
STAND_BY_S: Final = 600.0


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
    """Everything a node shall run, and how its devices shall be meanwhile.

    Attributes:
        partitions: of each board whose layout is managed; none means leave layouts as they are.
        power_settings: of devices that have another than their default, by device id.
        asleep: devices that may sleep.
    """

    node_id: str
    replicas: tuple[tuple[Replica, Intent], ...]
    partitions: tuple[Partition, ...] = ()
    power_settings: tuple[tuple[str, PowerSetting], ...] = ()
    asleep: tuple[str, ...] = ()


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
    walk = _Walk(blueprint, Sight(nodes), memory, now_s, relief)
    routes = tuple((name, walk.route(name)) for name in walk.deployments)
    wanted = walk.targets()
    layouts = {layout.node_id: layout for layout in blueprint.layouts}
    names = sorted({*(n.node_id for n in nodes), *wanted})
    targets = tuple(
        _laid_out(Target(name, _sorted(wanted.get(name, []))), layouts.get(name), walk.sight.node(name), relief)
        for name in names
    )
    limits = tuple(
        (r.replica_id, smaller_batch(r.batch_limit)) for name, routed in routes if name in relief.small for r in routed
    )
    return Rollout(targets, routes, RolloutMemory(tuple(sorted(walk.unrouted)), tuple(sorted(walk.gone))), limits)


class _Walk:
    """One look over a blueprint: what each replica shall do. Lives for one call."""

    def __init__(self, blueprint: Blueprint, sight: Sight, memory: RolloutMemory, now_s: float, relief: Relief) -> None:
        self.sight, self._now_s, self._relief = sight, now_s, relief
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
        routed = [r for r in new if self.sight.serves(r)]
        leaving = [r for r in self._leaving.get(deployment_id, []) if r.replica_id not in self.gone]
        missing = [r for r in new if self.sight.state(r) is not ReplicaState.READY]
        settled = bool(new) and not missing
        for old in leaving:
            # A slice that lies under the only ones missing is given up first: they can come in no other way.
            makes_room = bool(missing) and all(self.sight.lies_over(r, old) for r in missing)
            routed += self._leave(old, replaced=settled or makes_room or not old.hold)
        return tuple(routed)

    def targets(self) -> dict[str, list[tuple[Replica, Intent]]]:
        """What each node shall run, after every route was decided."""
        blocking = _by_device(r for group in self._leaving.values() for r in group if r.replica_id not in self.gone)
        for group in self._new.values():
            for r in group:
                place = (r.node_id, r.partition.device_id)
                if not _must_wait(r, blocking.get(place, []), self.sight):
                    self._want(self.sight.as_reported(r), Intent.SERVE)
        return self._wanted

    def _leave(self, old: Replica, *, replaced: bool) -> list[Replica]:
        if not replaced or self._is_woken(old):
            self._want(old, Intent.SERVE)
            return [old] if self.sight.serves(old) else []
        out_s = self._since.get(old.replica_id, self._now_s)
        if self.sight.ended(old) and not self._stands_by(old, out_s):
            self.gone.add(old.replica_id)
            return []
        self.unrouted.append((old.replica_id, out_s))
        self._want(old, Intent.DRAIN if self._now_s - out_s >= ROUTE_SETTLE_S else Intent.SERVE)
        return []

    def _is_woken(self, old: Replica) -> bool:
        if old.deployment_id not in self._relief.woken or not old.hold or self._is_waited_for(old):
            return False
        return self.sight.state(old) in (ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.DRAINED)

    def _stands_by(self, old: Replica, out_s: float) -> bool:
        if old.deployment_id not in self._relief.warm or not old.hold or self._now_s - out_s >= STAND_BY_S:
            return False
        return self.sight.state(old) is ReplicaState.DRAINED and not self._is_waited_for(old)

    def _is_waited_for(self, old: Replica) -> bool:
        waiting = self._waiting.get((old.node_id, old.partition.device_id), [])
        return any(
            self.sight.lies_over(r, old) or (r.deployment_id != old.deployment_id and _share_units(r, old))
            for r in waiting
        )

    def _want(self, replica: Replica, intent: Intent) -> None:
        self._wanted.setdefault(replica.node_id, []).append((replica, intent))


def _must_wait(replica: Replica, leaving: list[Replica], sight: Sight) -> bool:
    """Whether its slice is not made yet, or another deployment's leaving replica still has some of its cores."""
    if sight.state(replica) is not None:
        return False
    if not sight.is_made(replica):
        return True
    return any(
        old.deployment_id != replica.deployment_id and _share_units(old, replica) and sight.present(old)
        for old in leaving
    )


def _share_units(a: Replica, b: Replica) -> bool:
    if a.node_id != b.node_id or a.partition.device_id != b.partition.device_id:
        return False
    same = a.partition.partition_id == b.partition.partition_id
    return same or any(cpu in b.partition.cpu_ids for cpu in a.partition.cpu_ids)


def _laid_out(target: Target, layout: NodeLayout | None, node: Node | None, relief: Relief) -> Target:
    """The target with layout and power as they shall be while its replicas come and go."""
    if layout is None:
        return target
    there = {r.replica_id for r in node.replicas} if node else set[str]()
    held = [r.partition for r, _ in target.replicas if r.replica_id in there]
    serving = {r.partition.device_id for r, intent in target.replicas if r.hold and intent is Intent.SERVE}
    boosted = {r.partition.device_id for r, _ in target.replicas if r.deployment_id in relief.boosted}
    in_force = {d.device_id: d.setting for d in node.devices} if node else {}
    settings = [
        (
            name,
            told_setting(wanted, in_force.get(name, wanted), serving=name in serving, boosted=name in boosted),
        )
        for name, wanted in layout.power_settings
    ]
    return replace(
        target,
        partitions=told_partitions(layout, node, held),
        power_settings=tuple((name, setting) for name, setting in settings if setting != DEFAULT_POWER),
        asleep=layout.asleep,
    )


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
