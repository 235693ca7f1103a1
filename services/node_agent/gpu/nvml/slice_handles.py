"""Handles of a board's MIG devices, kept for a while: looking them up costs tens of milliseconds on some drivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pynvml

# A change that no event told of is seen after this long.
KEPT_S: Final = 5.0
_NOT_FOUND: Final = 6


@dataclass(frozen=True, slots=True)
class MigDevice:
    """A slice that processes can open."""

    gi_id: int
    uuid: str
    handle: Any


class SliceHandles:
    """MIG devices by board. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, tuple[MigDevice, ...]]] = {}

    def of(self, board: str, handle: Any, now_s: float) -> tuple[MigDevice, ...]:
        """Those of a board, by GPU instance id; none while MIG is off."""
        kept = self._known.get(board)
        if kept is None or now_s - kept[0] >= KEPT_S:
            kept = (now_s, _list(handle))
            self._known[board] = kept
        return kept[1]

    def forget(self, board: str) -> None:
        """They may have changed."""
        self._known.pop(board, None)

    def all_uuids(self) -> frozenset[str]:
        """UUIDs of all that are kept."""
        return frozenset(one.uuid for _, devices in self._known.values() for one in devices)


def _list(handle: Any) -> tuple[MigDevice, ...]:
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
