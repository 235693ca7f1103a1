"""Room on concrete devices: which cores or slices are claimed, which are held by replicas on their way out.

A mover (a deployment that already has replicas) may take free units and, for a swap, units of its own leaving
replicas: old and new then share cores for the moment. A newcomer may take any unit that is not claimed: its rollout
waits until the leaving replica is gone. Movers never wait for others, so no two deployments wait for each other.
The yard is a value that one planning run builds and changes; it is never kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from services.orchestrator.core.blueprint import Replica
from services.orchestrator.core.fleet import Device, Node, Partition, cores_of
from services.orchestrator.core.points import USABLE_MEMORY_SHARE

# Tries of one packing; beyond it the packing counts as not found. Enough for any fleet that is searched exhaustively.
PACK_STEPS: Final = 4_000


@dataclass(frozen=True, slots=True)
class Ask:
    """Replicas wanted on devices of a class."""

    deployment_id: str
    device_class: str
    kind: str
    memory_bytes: int
    count: int
    mover: bool
    selector: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Room found for one replica."""

    ask: Ask
    node_id: str
    partition: Partition


@dataclass(slots=True)
class Lot:
    """One device with what is taken of it. Units are CPU ids or partition ids."""

    node: Node
    device: Device
    claimed: set[str] = field(default_factory=set)
    held: dict[str, set[str]] = field(default_factory=dict)
    memory_bytes: int = 0
    tenants: list[str] = field(default_factory=list)

    def take(self, replica: Replica) -> None:
        """Claims what a kept replica has."""
        self.claimed.update(units_of(replica.partition))
        self.memory_bytes += replica.memory_bytes
        self.tenants.append(replica.deployment_id)

    def hold(self, replica: Replica) -> None:
        """Notes what a leaving replica still has."""
        self.held.setdefault(replica.deployment_id, set()).update(units_of(replica.partition))
        self.memory_bytes += replica.memory_bytes

    def room(self, ask: Ask) -> list[str]:
        """Units for one more replica of this ask, best ones; empty when there is no room."""
        if ask.memory_bytes + self.memory_bytes > self.device.memory_bytes * USABLE_MEMORY_SHARE and ask.memory_bytes:
            return []
        held = set[str]().union(*self.held.values()) if self.held else set[str]()
        units = self._units(ask.kind)
        free = [unit for unit in units if unit not in self.claimed and unit not in held]
        again = self.held.get(ask.deployment_id, set()) if ask.mover else held
        reused = [unit for unit in units if unit not in self.claimed and unit in again]
        need = cores_of(ask.kind) or 1
        if len(free) >= need:
            return _neighbours(free, need) if cores_of(ask.kind) else free[:1]
        return (free + reused)[:need] if len(free) + len(reused) >= need else []

    def likeness(self, ask: Ask) -> tuple[object, ...]:
        """Devices with equal likeness are the same to an ask."""
        held = set[str]().union(*self.held.values()) if self.held else set[str]()
        units = self._units(ask.kind)
        free = sum(unit not in self.claimed and unit not in held for unit in units)
        own = sum(unit not in self.claimed for unit in self.held.get(ask.deployment_id, ()))
        left = len(units) - len(self.claimed)
        return (
            *(self.device.device_class, len(units), left, free, own),
            *(self.device.memory_bytes - self.memory_bytes, self.tenants.count(ask.deployment_id), self.node.labels),
        )

    def partition(self, kind: str, units: list[str]) -> Partition:
        """The partition made of these units."""
        if not cores_of(kind):
            return next(p for p in self.device.partitions if p.partition_id == units[0])
        cpu_ids = tuple(sorted(int(unit) for unit in units))
        name = f"{self.device.device_id}:cores={_ranges(cpu_ids)}"
        return Partition(name, self.device.device_id, kind, cpu_ids, memory_bytes=self.device.memory_bytes)

    def _units(self, kind: str) -> list[str]:
        if cores_of(kind):
            return [str(cpu) for cpu in sorted(self.device.cpu_ids)]
        return sorted(p.partition_id for p in self.device.partitions if p.kind == kind)


class Yard:
    """All devices of nodes that keep work."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._lots = {
            (node.node_id, device.device_id): Lot(node, device)
            for node in sorted(nodes, key=lambda n: n.node_id)
            for device in node.devices
        }

    def lot_of(self, replica: Replica) -> Lot | None:
        """The device a replica is on, None when it is not there (any more)."""
        return self._lots.get((replica.node_id, replica.partition.device_id))

    def pack(self, asks: Iterable[Ask]) -> tuple[Place, ...] | None:
        """Room for every replica of every ask, or None; movers first, then large ones, replicas of one ask apart."""
        units = [ask for ask in sorted(asks, key=_hardest) for _ in range(ask.count)]
        places: list[Place] = []
        return tuple(places) if self._search(units, places, [PACK_STEPS]) else None

    def _search(self, asks: list[Ask], places: list[Place], steps: list[int]) -> bool:
        if len(places) == len(asks):
            return True
        ask, seen = asks[len(places)], list[tuple[object, ...]]()
        for lot in self._ordered(ask):
            if steps[0] <= 0:
                return False
            steps[0] -= 1
            likeness = lot.likeness(ask)
            room = [] if likeness in seen else lot.room(ask)
            if not room:
                continue
            seen.append(likeness)
            places.append(Place(ask, lot.node.node_id, lot.partition(ask.kind, room)))
            lot.claimed.update(room)
            lot.memory_bytes += ask.memory_bytes
            lot.tenants.append(ask.deployment_id)
            if self._search(asks, places, steps):
                return True
            lot.tenants.pop()
            lot.memory_bytes -= ask.memory_bytes
            lot.claimed.difference_update(room)
            places.pop()
        return False

    def _ordered(self, ask: Ask) -> list[Lot]:
        fitting = [
            lot
            for lot in self._lots.values()
            if lot.device.device_class == ask.device_class and lot.node.takes_work and lot.node.matches(ask.selector)
        ]

        def rank(lot: Lot) -> tuple[int, int, str, str]:
            own = sum(other.tenants.count(ask.deployment_id) for other in fitting if other.node is lot.node)
            left = len(lot.device.cpu_ids) - len(lot.claimed)
            return (own, left, lot.node.node_id, lot.device.device_id)

        return sorted(fitting, key=rank)


def units_of(partition: Partition) -> tuple[str, ...]:
    """What a partition takes of its device."""
    return tuple(str(cpu) for cpu in partition.cpu_ids) or (partition.partition_id,)


def _hardest(ask: Ask) -> tuple[int, int, int, str]:
    return (0 if ask.mover else 1, -cores_of(ask.kind), -ask.memory_bytes, ask.deployment_id)


def _neighbours(free: list[str], need: int) -> list[str]:
    """The first run of neighbouring cores that is long enough, else the first cores."""
    ids = [int(unit) for unit in free]
    for start in range(len(ids) - need + 1):
        if ids[start + need - 1] - ids[start] == need - 1:
            return free[start : start + need]
    return free[:need]


def _ranges(ids: tuple[int, ...]) -> str:
    parts: list[str] = []
    start = last = ids[0]
    for number in (*ids[1:], -1):
        if number == last + 1:
            last = number
            continue
        parts.append(str(start) if start == last else f"{start}-{last}")
        start = last = number
    return ",".join(parts)
