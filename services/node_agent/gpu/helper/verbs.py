"""The closed list of what may be asked of the helper: each verb with its arguments and its answer.

Strict: an unknown verb, an unknown or missing field, a number of the wrong kind or size is refused before anything is
done. The bounds here only keep out what no device can mean; the device's own limits are checked after.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from services.node_agent.core.mig.model import MAX_MEMORY_SLICES, DeviceTable
from services.node_agent.core.power_lease import LONGEST_LEASE_S
from services.node_agent.gpu.port import (
    Activation,
    BoardFacts,
    BoardReading,
    ComputeInstance,
    GpuEvent,
    GpuInstance,
    GpuProcess,
    MigMode,
    SliceReading,
    SystemFacts,
)

# NVML's ids of profiles and instances are small; 16 bits leave room.
_Id = Annotated[int, Field(ge=0, le=0xFFFF)]
_Uuid = Annotated[str, Field(pattern=r"^GPU-[0-9A-Za-z-]{1,60}$")]
# 100 kW: no board draws it.
_Milliwatts = Annotated[int, Field(ge=1, le=100_000_000)]
_Megahertz = Annotated[int, Field(ge=1, le=100_000)]
_Seat = Annotated[int, Field(ge=0, le=MAX_MEMORY_SLICES)]


class Arguments(BaseModel):
    """Of a verb; all fields must be there, and no others."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Nothing(Arguments):
    """No arguments."""


class OfBoard(Arguments):
    """A board."""

    uuid: _Uuid


class Mode(OfBoard):
    """A mode."""

    enabled: bool


class NewInstance(OfBoard):
    """A slice to create."""

    profile_id: _Id
    start: _Seat
    size: _Seat


class OfInstance(OfBoard):
    """A slice."""

    gi_id: _Id


class OfCompute(OfInstance):
    """A compute instance."""

    ci_id: _Id


class Cap(OfBoard):
    """A cap; null for the default."""

    cap_mw: _Milliwatts | None


class Clock(OfBoard):
    """A clock; null unlocks it."""

    clock_mhz: _Megahertz | None


class Hold(OfBoard):
    """A setting under a lease."""

    cap_mw: _Milliwatts | None
    clock_mhz: _Megahertz | None
    safety_cap_mw: _Milliwatts | None
    lease_s: Annotated[float, Field(gt=0, le=LONGEST_LEASE_S)]


class Kind(StrEnum):
    """What a verb does. Changes are for one connection at a time."""

    READ = "read"
    CHANGE = "change"
    # Kept by the server, which asks the worker for changes.
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing that can be asked."""

    kind: Kind
    arguments: type[Arguments]
    answer: TypeAdapter[Any]


def _reads(arguments: type[Arguments], answer: Any) -> Verb:
    return Verb(Kind.READ, arguments, TypeAdapter(answer))


def _changes(arguments: type[Arguments], answer: Any = None) -> Verb:
    return Verb(Kind.CHANGE, arguments, TypeAdapter(answer))


def _holds(arguments: type[Arguments]) -> Verb:
    return Verb(Kind.HOLD, arguments, TypeAdapter(None))


VERBS: Final[dict[str, Verb]] = {
    "system": _reads(Nothing, SystemFacts),
    "boards": _reads(Nothing, tuple[BoardFacts, ...]),
    "lost": _reads(Nothing, tuple[str, ...]),
    "table": _reads(OfBoard, DeviceTable),
    "mig_mode": _reads(OfBoard, MigMode),
    "instances": _reads(OfBoard, tuple[GpuInstance, ...]),
    "processes": _reads(OfBoard, tuple[GpuProcess, ...]),
    "read": _reads(OfBoard, BoardReading),
    "read_slices": _reads(OfBoard, tuple[SliceReading, ...]),
    "events": _reads(Nothing, tuple[GpuEvent, ...]),
    "set_mig_mode": _changes(Mode, Activation),
    "create_gpu_instance": _changes(NewInstance, int),
    "create_compute_instance": _changes(OfInstance, ComputeInstance),
    "destroy_compute_instance": _changes(OfCompute),
    "destroy_gpu_instance": _changes(OfInstance),
    "set_power_cap": _holds(Cap),
    "lock_sm_clock": _holds(Clock),
    "hold_power": _holds(Hold),
    "release_power": _holds(OfBoard),
}
