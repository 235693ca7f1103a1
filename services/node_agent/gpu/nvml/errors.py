"""NVML's error codes as typed faults: one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import pynvml

from services.node_agent.gpu.faults import (
    BoardLost,
    DriverTrouble,
    GpuError,
    InUse,
    InvalidRequest,
    NoDriver,
    NoPermission,
    NoRoom,
    NotSupported,
    NotThere,
    ResetRequired,
)

Answer = TypeVar("Answer")

_TABLE: Final[dict[int, tuple[type[GpuError], str]]] = {
    1: (NoDriver, "the session with the driver is over; restart the agent"),
    2: (InvalidRequest, "the device does not take this argument"),
    3: (NotSupported, "this board or driver does not offer it"),
    4: (NoPermission, "not permitted: it wants root, or the MIG capability files (mig/config, mig/monitor)"),
    6: (NotThere, "there is no such thing on the board"),
    9: (NoDriver, "the NVIDIA driver is not loaded; load it (modprobe nvidia)"),
    10: (DriverTrouble, "the driver did not answer in time"),
    12: (NoDriver, "there is no libnvidia-ml.so.1"),
    13: (NotSupported, "the driver's library has no such function; update the driver"),
    15: (BoardLost, "the board fell off the bus; reset it or reboot the machine"),
    16: (ResetRequired, "the board must be reset first (nvidia-smi -r, with its NVLink peers, or a reboot)"),
    18: (NoDriver, "library and kernel driver differ in version, as after an update; reboot or reload the driver"),
    19: (InUse, "a process, a compute instance or a monitoring tool holds it"),
    23: (NoRoom, "overlap or no capacity, or the very same instance exists already"),
    24: (InvalidRequest, "the device does not take this clock"),
    25: (NotSupported, "the driver's library speaks another version of this call; update the driver"),
    28: (NotThere, "there is no such board"),
}
# What a reading that a board does not offer answers with.
_NOT_TOLD: Final = frozenset({3, 13, 25})


def fault_of(error: pynvml.NVMLError, uuid: str = "") -> GpuError:
    """The fault that an NVML error means; codes that are not in the table are trouble of the driver."""
    code = int(error.value)
    kind, advice = _TABLE.get(code, (DriverTrouble, "the driver failed; its kernel log may say more (dmesg)"))
    return kind(f"{advice} (NVML {code})", code, uuid)


def told(call: Callable[..., Answer], *arguments: Any) -> Answer | None:
    """What a call answers; None where board or driver do not offer it. Other errors of NVML pass through."""
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        if int(error.value) in _NOT_TOLD:
            return None
        raise
