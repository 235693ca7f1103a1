"""A board's MIG devices: the slices that processes can open. Listing them needs no right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pynvml

_NOT_FOUND: Final = 6


@dataclass(frozen=True, slots=True)
class MigDevice:
    """A slice with a compute instance."""

    gi_id: int
    uuid: str
    handle: Any


def list_mig_devices(handle: Any) -> tuple[MigDevice, ...]:
    """All of a board, by GPU instance id; none while MIG is off. Errors of NVML pass through."""
    found = []
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            device = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except pynvml.NVMLError as error:
            if int(error.value) == _NOT_FOUND:
                continue  # an empty slot
            raise
        gi_id = int(pynvml.nvmlDeviceGetGpuInstanceId(device))
        found.append(MigDevice(gi_id, str(pynvml.nvmlDeviceGetUUID(device)), device))
    return tuple(sorted(found, key=lambda one: one.gi_id))
