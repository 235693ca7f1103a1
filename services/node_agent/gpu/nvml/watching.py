"""Events of boards: XIDs, uncorrectable memory errors, changes of MIG made by whomever."""

from __future__ import annotations

from typing import Any, Final

import pynvml

from services.node_agent.gpu.nvml.errors import fault_of, told
from services.node_agent.gpu.nvml.session import NvmlSession
from services.node_agent.gpu.port import EventKind, GpuEvent

# At most this many are handed over at a time; the next call brings the rest.
MAX_EVENTS: Final = 64
_KINDS: Final = {
    pynvml.nvmlEventTypeXidCriticalError: EventKind.XID,
    pynvml.nvmlEventMigConfigChange: EventKind.MIG_CHANGED,
    pynvml.nvmlEventTypeDoubleBitEccError: EventKind.ECC,
}
_TIMED_OUT: Final = 10
_NO_INSTANCE: Final = 0xFFFFFFFF


class EventWatch:
    """One set of events over all boards. For use by one thread."""

    def __init__(self, session: NvmlSession) -> None:
        self._session = session
        self._set: Any = None
        self._generation = -1

    def wait(self, limit_s: float) -> tuple[GpuEvent, ...]:
        """Events that came, waiting at most so long for the first.

        Raises:
            GpuError: the driver has no events (NotSupported), or is in trouble.
        """
        try:
            if self._generation != self._session.generation:
                self._register()
            found: list[GpuEvent] = []
            wait_ms = round(limit_s * 1e3)
            while len(found) < MAX_EVENTS and (event := self._next(wait_ms)) is not None:
                found.append(event)
                wait_ms = 0
        except pynvml.NVMLError as error:
            raise fault_of(error) from error
        return tuple(found)

    def close(self) -> None:
        """Ends it."""
        if self._set is not None:
            pynvml.nvmlEventSetFree(self._set)
            self._set = None

    def _register(self) -> None:
        """Registers every board that answers; after a change of handles with a new set."""
        self.close()
        self._set = pynvml.nvmlEventSetCreate()
        self._generation = self._session.generation
        for _, handle in self._session.handle_items():
            offered = told(pynvml.nvmlDeviceGetSupportedEventTypes, handle) or 0
            wanted = sum(kind for kind in _KINDS if kind & offered)
            if wanted:
                told(pynvml.nvmlDeviceRegisterEvents, handle, wanted, self._set)

    def _next(self, wait_ms: int) -> GpuEvent | None:
        try:
            data = pynvml.nvmlEventSetWait_v2(self._set, wait_ms)
        except pynvml.NVMLError as error:
            if int(error.value) == _TIMED_OUT:
                return None
            raise
        kind = _KINDS.get(data.eventType, EventKind.XID)
        gi_id = None if data.gpuInstanceId == _NO_INSTANCE else int(data.gpuInstanceId)
        number = int(data.eventData) if kind is EventKind.XID else 0
        return GpuEvent(self._session.uuid_of(data.device), kind, number, gi_id)
