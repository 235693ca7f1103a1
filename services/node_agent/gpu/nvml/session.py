"""The one long-lived session with the driver: handles by UUID, and which boards are lost."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pynvml

from services.node_agent.gpu.faults import BoardLost, GpuError, NotThere
from services.node_agent.gpu.nvml.errors import fault_of

Answer = TypeVar("Answer")
# More boards than any host has; stops a garbled answer of a driver.
MAX_BOARDS: Final = 64
_NAMELESS: Final = "index "
_LIBRARY_NOT_FOUND, _INVALID_ARGUMENT, _LOST = 12, 2, 15


class NvmlSession:
    """Handles of boards. Safe for use by several threads.

    Args of `open_nvml` apply; the library is initialised when this is made.
    """

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}
        self._lost: dict[str, None] = {}
        self._lock = threading.Lock()
        # Grows with each change of handles; what was registered with old ones must be registered again.
        self.generation = 0
        self.rescan()

    def close(self) -> None:
        """Ends the session."""
        pynvml.nvmlShutdown()

    @property
    def uuids(self) -> tuple[str, ...]:
        """Boards that answer, in the order of the driver at the last scan."""
        return tuple(uuid for uuid in self._handles if uuid not in self._lost)

    @property
    def lost(self) -> tuple[str, ...]:
        """What does not answer any more: UUIDs, or "index N" where it never did."""
        return tuple(self._lost)

    def rescan(self) -> None:
        """Looks for all boards again: after a change of mode, index and handle of a board may differ.

        Raises:
            GpuError: the driver does not answer at all.
        """
        found: dict[str, Any] = {}
        lost: dict[str, None] = {}
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise fault_of(error) from error
        for index in range(min(count, MAX_BOARDS)):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                found[pynvml.nvmlDeviceGetUUID(handle)] = handle
            except pynvml.NVMLError:
                lost[f"{_NAMELESS}{index}"] = None
        with self._lock:
            seen = (*self._handles, *(name for name in self._lost if not name.startswith(_NAMELESS)))
            gone = [uuid for uuid in seen if uuid not in found]
            # A board seen before has a name; its index says nothing more.
            named = dict.fromkeys(gone) if len(gone) >= len(lost) else {**dict.fromkeys(gone), **lost}
            self._handles, self._lost = found, named
            self.generation += 1

    def ask(self, uuid: str, question: Callable[[Any], Answer]) -> Answer:
        """The answer of a board to calls with its handle; a handle that went stale is renewed once.

        Raises:
            GpuError: what the library answered.
        """
        handle = self._handle(uuid)
        try:
            return question(handle)
        except pynvml.NVMLError as error:
            renewed = self._renewed(uuid, handle) if int(error.value) == _INVALID_ARGUMENT else None
            if renewed is None:
                raise self._failed(error, uuid) from error
        try:
            return question(renewed)
        except pynvml.NVMLError as error:
            raise self._failed(error, uuid) from error

    def uuid_of(self, handle: Any) -> str:
        """The board of a handle that an event carries; "" when it is none of ours."""
        wanted = address(handle)
        return next((uuid for uuid, known in self._handles.items() if address(known) == wanted), "")

    def handle_items(self) -> tuple[tuple[str, Any], ...]:
        """Boards that answer, with their handles."""
        return tuple((uuid, handle) for uuid, handle in self._handles.items() if uuid not in self._lost)

    def _handle(self, uuid: str) -> Any:
        handle = self._handles.get(uuid)
        if uuid in self._lost:
            raise BoardLost("the board fell off the bus; reset it or reboot the machine (NVML 15)", _LOST, uuid)
        if handle is None:
            raise NotThere(f"no board {uuid!r}; there are {', '.join(self._handles) or 'none'}", 28, uuid)
        return handle

    def _renewed(self, uuid: str, handle: Any) -> Any | None:
        """Another handle of the board; None when it is the same."""
        try:
            fresh = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError:
            return None
        if address(fresh) == address(handle):
            return None
        with self._lock:
            self._handles[uuid] = fresh
            self.generation += 1
        return fresh

    def _failed(self, error: pynvml.NVMLError, uuid: str) -> GpuError:
        fault = fault_of(error, uuid)
        if isinstance(fault, BoardLost):
            with self._lock:
                self._lost[uuid] = None
        return fault


def address(handle: Any) -> int:
    """What tells handles apart."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def open_nvml() -> NvmlSession | None:
    """Opens the session; None on a machine without NVML, which most are.

    Raises:
        NoDriver: there is a library, and no driver that goes with it.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if int(error.value) == _LIBRARY_NOT_FOUND:
            return None
        raise fault_of(error) from error
    try:
        return NvmlSession()
    except GpuError:
        pynvml.nvmlShutdown()
        raise
