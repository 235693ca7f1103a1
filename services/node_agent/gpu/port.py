"""The port to a machine's NVIDIA boards, in two halves: `GpuReader` needs no privilege, `GpuAdmin` changes things.

Verbs are small, synchronous, and may block for seconds: whoever calls them does so off the event loop. They decide
nothing: what may be done is said by the MIG planner, the executor and the power rules. Every failure is a `GpuError`
(see `faults.py`) with the code of the device's library. Back-ends: NVML (real or over the C fake), simulated machines,
and for `GpuAdmin` the client of the privileged helper. All pass one contract suite, tests/gpu/contract.py.

Boards are named by UUID, slices by GPU instance id: handles and indices may change when the mode is set.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Protocol

from services.node_agent.core.mig.model import DeviceTable, Placement


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """What the driver says of itself. Versions are text as reported, "" when it has none to tell."""

    driver_version: str
    library_version: str
    cuda_version: str


@dataclass(frozen=True, slots=True)
class PowerLimits:
    """What caps the device itself allows, and its default, in milliwatts."""

    least_mw: int
    most_mw: int
    default_mw: int


@dataclass(frozen=True, slots=True)
class BoardFacts:
    """A board as found; changes only with a driver reload or a change of mode.

    Attributes:
        uuid: "GPU-…".
        product_name: for instance "NVIDIA H100 80GB HBM3".
        device_class: what profiles are kept by, for instance "gpu:h100-80".
        compute_capability: for instance (9, 0).
        memory_bytes: of the whole board.
        multiprocessor_count: of the whole board; 0 when not told.
        mig_capable: whether it can be cut into slices.
        resetless_mode: whether the MIG mode changes without a reset.
        query_while_off: whether profiles can be read in full while MIG is off.
        power: None when the device offers no caps.
        sm_clocks_mhz: locked SM clocks that it takes, ascending; empty when it offers none.
        peers: UUIDs of boards linked by NVLink.
        exclusive: whether its compute mode lets only one process, or none, in.
    """

    uuid: str
    product_name: str
    device_class: str
    pci_bus_id: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    multiprocessor_count: int
    mig_capable: bool
    resetless_mode: bool
    query_while_off: bool
    power: PowerLimits | None
    sm_clocks_mhz: tuple[int, ...]
    peers: tuple[str, ...] = ()
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class MigMode:
    """The mode in force, and the one that a reset or reboot would bring."""

    current: bool
    pending: bool


@dataclass(frozen=True, slots=True)
class ComputeInstance:
    """A share of the multiprocessors of a GPU instance; `uuid` ("MIG-…") is what a process opens."""

    ci_id: int
    uuid: str


@dataclass(frozen=True, slots=True)
class GpuInstance:
    """A slice as it stands. One without compute instances has no MIG device and cannot be opened."""

    gi_id: int
    profile_id: int
    placement: Placement
    compute: tuple[ComputeInstance, ...] = ()


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds a board or one of its slices; `gi_id` is None when the board was opened whole."""

    pid: int
    gi_id: int | None
    used_memory_bytes: int


@dataclass(frozen=True, slots=True)
class BoardReading:
    """A board at one moment. None where the device does not tell.

    Attributes:
        energy_mj: since the driver was loaded; restarts with it.
        power_mw: as the device averages it (1 s on most boards since Ampere).
        power_cap_mw: enforced, the least of all limiters.
        sm_clock_mhz: observed now.
        clock_reasons: why clocks are held down, in NVML's words, for instance "sw_power_cap".
        utilization: share of time at work, in [0, 1]; None while MIG is on.
        ecc_uncorrected: errors since the driver was loaded.
    """

    energy_mj: int | None
    power_mw: int | None
    power_cap_mw: int | None
    temperature_c: int | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    clock_reasons: tuple[str, ...]
    utilization: float | None
    memory_used_bytes: int
    ecc_uncorrected: int | None = None


@dataclass(frozen=True, slots=True)
class SliceReading:
    """A slice at one moment; shares in [0, 1], None where the board does not tell (before Hopper)."""

    gi_id: int
    memory_used_bytes: int
    memory_total_bytes: int
    sm_activity: float | None = None
    dram_activity: float | None = None


class EventKind(StrEnum):
    """What a board tells of its own accord."""

    XID = "xid"
    MIG_CHANGED = "mig_changed"
    ECC = "ecc"
    CLOCKS = "clocks"


@dataclass(frozen=True, slots=True)
class GpuEvent:
    """An event of a board; `number` is the XID, `gi_id` the slice it concerns, None for the board."""

    uuid: str
    kind: EventKind
    number: int = 0
    gi_id: int | None = None


class Activation(IntEnum):
    """What became of a change of mode: the call may succeed and the change not be in force. NVML's numbers."""

    ACTIVE = 0
    NOT_SUPPORTED = 3
    RESET_REQUIRED = 16
    IN_USE = 19


class GpuReader(Protocol):
    """Looks; needs no root. Every method but `system` and `boards` raises GpuError of one board only."""

    def system(self) -> SystemFacts:
        """The driver."""

    def boards(self) -> tuple[BoardFacts, ...]:
        """All boards that answer, in the order of the driver; one that is lost is left out and named in `lost`."""

    def lost(self) -> tuple[str, ...]:
        """What was found and does not answer any more, as UUID or PCI id."""

    def table(self, uuid: str) -> DeviceTable:
        """Profiles with all placements, as the device tells them now."""

    def mig_mode(self, uuid: str) -> MigMode:
        """The mode."""

    def instances(self, uuid: str) -> tuple[GpuInstance, ...]:
        """Every GPU instance, also those without compute instances, in order of their start."""

    def processes(self, uuid: str) -> tuple[GpuProcess, ...]:
        """Processes that can be seen; holders may be hidden."""

    def read(self, uuid: str) -> BoardReading:
        """Readings of the board."""

    def read_slices(self, uuid: str) -> tuple[SliceReading, ...]:
        """Readings of each slice with a compute instance; activity is since the call before."""

    def events(self, limit_s: float) -> tuple[GpuEvent, ...]:
        """Events that came, waiting at most so long for the first."""


class GpuAdmin(Protocol):
    """Changes; needs the helper's privilege. Each call is one call of the device's library, read back by the caller."""

    def set_mig_mode(self, uuid: str, enabled: bool) -> Activation:
        """Asks for a mode. Only ACTIVE means that it is in force."""

    def create_gpu_instance(self, uuid: str, profile_id: int, placement: Placement) -> int:
        """Creates a slice at a place; its GPU instance id."""

    def create_compute_instance(self, uuid: str, gi_id: int) -> ComputeInstance:
        """Creates the compute instance that takes all of a slice."""

    def destroy_compute_instance(self, uuid: str, gi_id: int, ci_id: int) -> None:
        """Destroys a compute instance."""

    def destroy_gpu_instance(self, uuid: str, gi_id: int) -> None:
        """Destroys a slice without compute instances."""

    def set_power_cap(self, uuid: str, cap_mw: int | None) -> None:
        """Asks for a power cap; None for the device's default."""

    def lock_sm_clock(self, uuid: str, clock_mhz: int | None) -> None:
        """Locks the SM clock; None unlocks it."""
