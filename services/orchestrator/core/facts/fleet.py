"""Nodes, their devices and what runs on them, as last reported. Pure values; `liveness` decides the states."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

CPU_KIND_PREFIX = "cpu/"
# The whole board as one partition; slices of a board are "mig/PROFILE".
WHOLE_KIND: Final = "gpu/whole"
MIG_KIND_PREFIX: Final = "mig/"


class DeviceKind(StrEnum):
    """What can be cut, and how: a CPU into sets of cores, a GPU into slices of its table or not at all."""

    CPU = "cpu"
    GPU = "gpu"


class NodeState(StrEnum):
    """Whether a node may get work; the words of `tradewind.v1.NodeState`, but for "gone": that is no node any more."""

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


class LayoutNews(StrEnum):
    """How a change of a board's layout goes or ended, as far as a plan depends on it."""

    WELL = "well"
    WAITING = "waiting"
    REFUSED = "refused"
    RESTORED = "restored"
    BLOCKED = "blocked"
    DEGRADED = "degraded"


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
class PowerSetting:
    """Clock and cap of a whole device; None leaves the device's default.

    Attributes:
        eased_sm_clock_mhz: the node runs it at this clock for as long as nothing on it would be late.
    """

    sm_clock_mhz: int | None = None
    power_cap_mw: int | None = None
    eased_sm_clock_mhz: int | None = None

    @property
    def order(self) -> tuple[int, int, int]:
        """For sorting: the default first."""
        return (self.sm_clock_mhz or 0, self.power_cap_mw or 0, self.eased_sm_clock_mhz or 0)

    def __str__(self) -> str:
        clock = f"{self.sm_clock_mhz} MHz" if self.sm_clock_mhz is not None else ""
        if self.eased_sm_clock_mhz is not None:
            clock = f"{clock or 'default clock'} eased to {self.eased_sm_clock_mhz} MHz"
        cap = f"{self.power_cap_mw / 1000:g} W" if self.power_cap_mw is not None else ""
        return ", ".join(filter(None, (clock, cap))) or "default"


DEFAULT_POWER: Final = PowerSetting()


@dataclass(frozen=True, slots=True)
class SliceKind:
    """A profile of slices that a board offers, as the board itself reports it.

    Attributes:
        profile_id: the board's number for it; part of a slice's identity.
        kind: partition kind, for instance "mig/3g.40gb".
        memory_bytes: memory that one slice can use.
        compute_slices: what one slice takes of the board's compute slices.
        memory_slices: what one slice takes of the board's memory slices.
        starts: memory slices it can begin at.
        most: most slices of this profile at one time.
        extra_engine: whether it takes an engine of which a board has one for one slice only ("+me").
    """

    profile_id: int
    kind: str
    memory_bytes: int
    compute_slices: int
    memory_slices: int
    starts: tuple[int, ...]
    most: int
    extra_engine: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """A device. `partitions` are those that exist; a CPU's are cut from `cpu_ids` as needed.

    Attributes:
        kind: how it is cut.
        power_settings: settings it may be given besides its default; none means that power is left alone.
        setting: the setting in force, as read back.
        table: slices a board can be cut into; none means that its partitions are left as they are.
        sleep_power_mw: what it draws when nothing is on it and it may sleep; None means that it cannot.
        asleep: whether it sleeps now.
        wake_s: time from sleep to work.
        price_per_hour: in the operator's currency; 0 means not known.
        barred: slices that it could not make lately and is not asked for.
        kept: slices that it could not take away lately; they stay.
        layout_trouble: why its layouts are limited for now; "" when they are not.
    """

    device_id: str
    device_class: str
    memory_bytes: int
    cpu_ids: tuple[int, ...] = ()
    partitions: tuple[Partition, ...] = ()
    idle_power_mw: float = 0.0
    kind: DeviceKind = DeviceKind.CPU
    power_settings: tuple[PowerSetting, ...] = ()
    setting: PowerSetting = DEFAULT_POWER
    table: tuple[SliceKind, ...] = ()
    sleep_power_mw: float | None = None
    asleep: bool = False
    wake_s: float = 0.0
    price_per_hour: float = 0.0
    barred: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    layout_trouble: str = ""

    @property
    def least_power_mw(self) -> float:
        """What it draws when nothing is on it."""
        return self.idle_power_mw if self.sleep_power_mw is None else min(self.sleep_power_mw, self.idle_power_mw)

    @property
    def can_sleep(self) -> bool:
        """Whether it may be put to sleep; how much that saves is known once it slept."""
        return self.sleep_power_mw is not None


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
class LayoutReport:
    """What a node says of one board's layout.

    Attributes:
        generation: of the newest target whose layout it took.
        code: short reason, for instance "holder_unknown".
        foreign: slices that somebody else made, in words.
    """

    device_id: str
    news: LayoutNews
    generation: int = 0
    code: str = ""
    words: str = ""
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A node as last reported, with the state that liveness gave it. `layouts` are of boards that it cuts."""

    node_id: str
    state: NodeState
    devices: tuple[Device, ...] = ()
    replicas: tuple[ReplicaReport, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    address: str = ""
    layouts: tuple[LayoutReport, ...] = ()

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
