"""Nodes, their devices and what runs on them, as last reported. Pure values; `liveness` decides the states."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

CPU_KIND_PREFIX = "cpu/"


class NodeState(StrEnum):
    """Whether a node may get work; the words of `tradewind.v1.NodeState`."""

    JOINING = "joining"
    ACTIVE = "active"
    SUSPECT = "suspect"
    LOST = "lost"
    DRAINING = "draining"
    DRAINED = "drained"


class ReplicaState(StrEnum):
    """Where a replica stands; the words of `tradewind.v1.ReplicaState`."""

    FETCHING = "fetching"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DRAINED = "drained"
    FAILED = "failed"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Partition:
    """The share of a device that a replica is given."""

    partition_id: str
    device_id: str
    kind: str
    cpu_ids: tuple[int, ...] = ()
    uuid: str = ""
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """A device. `partitions` are those that exist; a CPU's are cut from `cpu_ids` as needed."""

    device_id: str
    device_class: str
    memory_bytes: int
    cpu_ids: tuple[int, ...] = ()
    partitions: tuple[Partition, ...] = ()
    idle_power_mw: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """One replica as its node reports it."""

    replica_id: str
    state: ReplicaState
    deployment_id: str = ""
    variant_id: str = ""
    reason: str = ""
    starts: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """A node as last reported, with the state that liveness gave it."""

    node_id: str
    state: NodeState
    devices: tuple[Device, ...] = ()
    replicas: tuple[ReplicaReport, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    address: str = ""

    @property
    def takes_work(self) -> bool:
        """Whether new replicas may be placed here."""
        return self.state is NodeState.ACTIVE

    @property
    def keeps_work(self) -> bool:
        """Whether replicas that are here may stay in a plan."""
        return self.state in (NodeState.ACTIVE, NodeState.SUSPECT, NodeState.JOINING)

    def matches(self, selector: tuple[tuple[str, str], ...]) -> bool:
        """Whether it has every label asked for."""
        mine = dict(self.labels)
        return all(mine.get(key) == value for key, value in selector)


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit of mean modelled power on "site", "node/NODE" or "device/NODE/DEVICE"."""

    scope: str
    limit_mw: float


def cores_of(kind: str) -> int:
    """Cores of a CPU partition kind ("cpu/2" is 2), 0 for kinds of other devices."""
    digits = kind.removeprefix(CPU_KIND_PREFIX)
    return int(digits) if kind.startswith(CPU_KIND_PREFIX) and digits.isdigit() else 0
