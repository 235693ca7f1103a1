"""The port every device implements. Its contract suite is tests/node_agent/test_devices.py."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from services.node_agent.core.energy import Rate
from tradewind.domain.figures import EnergyFigure, FigureSource


class DeviceKind(IntEnum):
    """The numbers of `tradewind.v1.DeviceKind`."""

    CPU = 1
    NVIDIA_GPU = 2
    VULKAN = 3
    AMD_GPU = 4
    SIMULATED = 5


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a device is; the same at each look. See `tradewind.v1.Device`."""

    device_id: str
    kind: DeviceKind
    device_class: str
    product_name: str
    targets: tuple[str, ...]
    memory_bytes: int
    cpu_ids: tuple[int, ...]
    partition_kinds: tuple[str, ...]
    energy_source: FigureSource
    energy_method: str
    idle_power_mw: float
    idle_power_source: FigureSource
    can_set_power: bool = False
    can_partition: bool = False


@dataclass(frozen=True, slots=True)
class Partition:
    """A share of a device. See `tradewind.v1.Partition`."""

    partition_id: str
    device_id: str
    kind: str
    cpu_ids: tuple[int, ...]
    memory_bytes: int
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A device at one moment.

    Attributes:
        energy: since the device was opened; never falls.
        power_mw: mean since the reading before.
        utilization: share at work since the reading before, in [0, 1].
        fault: health in words; empty when well.
    """

    energy: EnergyFigure
    power_mw: float
    utilization: float
    memory_used_bytes: int
    fault: str = ""


class Device(Protocol):
    """A device of this node."""

    @property
    def facts(self) -> DeviceFacts:
        """What it is."""

    def cut(self, kind: str, busy: Collection[int] = ()) -> Partition:
        """A partition of a kind, for something that runs for a while; off the busy CPUs where that can be.

        Raises:
            InvalidField: it has no such kind.
        """

    def check(self, device_id: str, kind: str, cpu_ids: Collection[int]) -> None:
        """Returns when the device has such a partition.

        Raises:
            InvalidField: it does not, and why.
        """

    def read(self) -> Reading:
        """Readings since the one before. Called about each report period."""

    def rate(self) -> Rate:
        """What its busy time costs now."""
