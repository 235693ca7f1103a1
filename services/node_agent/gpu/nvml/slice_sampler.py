"""Readings of one board's slices: handles kept for a while, activity from samples of GPM.

A board has a sampler and a lock of its own, so that one whose driver hangs holds up no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import pynvml

from services.node_agent.gpu.nvml.activity import SliceActivity
from services.node_agent.gpu.nvml.mig_devices import MigDevice, list_mig_devices
from services.node_agent.gpu.port import SliceReading

# Looking MIG devices up costs tens of milliseconds on some drivers (DEVICES notes; Kepler). A change that no event told
# of is seen after this long.
KEPT_S: Final = 5.0
_INVALID_ARGUMENT, _NOT_FOUND = 2, 6


class SliceSampler:
    """One board.

    Args:
        now_s: monotonic clock.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s, self._activity = now_s, SliceActivity()
        self._devices: tuple[MigDevice, ...] = ()
        self._listed_at_s: float | None = None
        self._lock = threading.Lock()

    def devices(self, handle: Any) -> tuple[MigDevice, ...]:
        """Slices that processes can open, by GPU instance id; none while MIG is off. Errors of NVML pass through."""
        with self._lock:
            return self._list(handle)

    def read(self, handle: Any) -> tuple[SliceReading, ...]:
        """A reading of each. Errors of NVML pass through; one that went away since it was listed is none."""
        with self._lock:
            try:
                return self._read(handle)
            except pynvml.NVMLError as error:
                if int(error.value) not in (_NOT_FOUND, _INVALID_ARGUMENT):
                    raise
            self._listed_at_s = None
            return self._read(handle)

    def forget(self) -> None:
        """Slices may have changed: they are listed anew. Takes no lock: a reading under way may hang."""
        self._listed_at_s = None

    def close(self) -> None:
        """Gives back what it holds of the library."""
        with self._lock:
            self._activity.close()

    def _list(self, handle: Any) -> tuple[MigDevice, ...]:
        now_s = self._now_s()
        if self._listed_at_s is None or now_s - self._listed_at_s >= KEPT_S:
            # Marked first: a change that is told of meanwhile is not forgotten.
            self._listed_at_s = now_s
            self._devices = list_mig_devices(handle)
            self._activity.keep(frozenset(one.uuid for one in self._devices))
        return self._devices

    def _read(self, handle: Any) -> tuple[SliceReading, ...]:
        return tuple(self._read_one(handle, device) for device in self._list(handle))

    def _read_one(self, handle: Any, device: MigDevice) -> SliceReading:
        memory = pynvml.nvmlDeviceGetMemoryInfo(device.handle)
        sm, dram = self._activity.of(handle, device.gi_id, device.uuid, self._now_s())
        return SliceReading(device.gi_id, int(memory.used), int(memory.total), sm, dram)
