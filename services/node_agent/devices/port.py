"""The port every device implements. Its contract suite is tests/node_agent/test_devices.py."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from services.node_agent.core.energy import Rate
from services.node_agent.core.meter_window import MeterPoint
from services.node_agent.core.mig.model import DeviceTable
from services.node_agent.core.power import Setting
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
    """What a device is; the same at each look. See `tradewind.v1.Device`.

    `table` holds the profiles of slices that a GPU offers, `power_settings` what it may be given besides its default.
    """

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
    table: DeviceTable | None = None
    power_settings: tuple[Setting, ...] = ()


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
class SliceDetail:
    """A slice of a board at one moment. None where the board does not tell.

    Attributes:
        sm_activity, dram_activity: shares at work, in [0, 1].
        energy: attributed to it since it was first seen.
        power_mw: attributed to it over the last second.
    """

    partition: Partition
    memory_used_bytes: int
    sm_activity: float | None
    dram_activity: float | None
    energy: EnergyFigure
    power_mw: float


@dataclass(frozen=True, slots=True)
class BoardDetail:
    """What a GPU tells besides. None where it does not.

    Attributes:
        power_source: label of the reading's mean power; weaker than that of energy over short windows.
        power_cap_mw: enforced, the least of all limiters.
        clock_reasons: why clocks are held down, in NVML's words.
        ecc_uncorrected: memory errors since the driver was loaded.
        unallocated: energy of no slice; None while it is not cut.
        events: how often each kind came since the agent started, for instance ("xid 31", 2).
        fault_lasts: whether the fault stays, and what runs on the board cannot be trusted.
    """

    power_source: FigureSource
    power_cap_mw: int | None = None
    temperature_c: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    clock_reasons: tuple[str, ...] = ()
    ecc_uncorrected: int | None = None
    slices: tuple[SliceDetail, ...] = ()
    unallocated: EnergyFigure | None = None
    events: tuple[tuple[str, int], ...] = ()
    fault_lasts: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """A device at one moment.

    Attributes:
        energy: since the device was opened; never falls.
        power_mw: mean since the reading before.
        utilization: share at work since the reading before, in [0, 1].
        fault: health in words; empty when well. A device with a fault takes nothing new.
        board: of a GPU.
    """

    energy: EnergyFigure
    power_mw: float
    utilization: float
    memory_used_bytes: int
    fault: str = ""
    board: BoardDetail | None = None


class Device(Protocol):
    """A device of this node."""

    @property
    def facts(self) -> DeviceFacts:
        """What it is."""

    def partitions(self) -> tuple[Partition, ...]:
        """Those that stand now; none for a CPU, whose partitions are cut when they are wanted."""

    def cut(self, kind: str, busy: Collection[int | str] = ()) -> Partition:
        """A partition of a kind, for something that runs for a while.

        Args:
            kind: one of its partition kinds.
            busy: CPUs and UUIDs of slices that others have. CPUs of theirs are shared where there are no others.

        Raises:
            InvalidField: it has no such kind, or none of it stands.
            InUse: others have all of that kind.
            DeviceFault: it is taken out.
        """

    def check(self, device_id: str, kind: str, cpu_ids: Collection[int], uuid: str = "") -> None:
        """Returns when the device has such a partition: by CPUs, or by the UUID of a slice.

        Raises:
            InvalidField: it does not, and why.
            DeviceFault: it is taken out.
        """

    def read(self) -> Reading:
        """Readings since the one before. Called about each report period."""

    def meter(self, uuid: str, look: bool = True) -> MeterPoint | None:
        """The meter of a board or slice; None where requests are charged for CPU time.

        Args:
            uuid: of the board or slice.
            look: read it now, which may wait for the driver: call it off the event loop. Else as last read.

        Raises:
            InvalidField: no such slice stands.
        """

    def rate(self) -> Rate:
        """What its busy time costs now."""
