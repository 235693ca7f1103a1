"""The agent's side of the helper's socket: `GpuReader` and `GpuAdmin`, and power settings under lease.

Synchronous: call it off the event loop. Every call ends within a limit, whatever the helper does. A helper that is not
there is `HelperAway`; the next call connects again.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

from services.node_agent.core.mig.model import Placement
from services.node_agent.core.power import Setting
from services.node_agent.core.power_lease import LEASE_S
from services.node_agent.gpu.faults import HelperAway
from services.node_agent.gpu.helper.frames import MAX_ANSWER_BYTES, read_answer, request_line
from services.node_agent.gpu.helper.remote import RemoteReader
from services.node_agent.gpu.helper.verbs import VERBS
from services.node_agent.gpu.port import Activation, ComputeInstance, GpuEvent

# Longer than the helper's own limit for the driver, so that it is the helper who says what is wrong.
CALL_LIMIT_S: Final = 15.0


class HelperClient(RemoteReader):
    """See `GpuReader` and `GpuAdmin`.

    Args:
        path: of the helper's socket.
        limit_s: longest time for a call.
    """

    def __init__(self, path: Path, limit_s: float = CALL_LIMIT_S) -> None:
        self._path, self._limit_s = path, limit_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._number = 0

    def close(self) -> None:
        """Closes the connection. Idempotent; a later call connects again."""
        with self._lock:
            self._drop()

    def abort(self) -> None:
        """Ends a call in hand from another thread, so that a process which stops need not wait for it."""
        if (connection := self._socket) is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def events(self, limit_s: float) -> tuple[GpuEvent, ...]:
        """See `GpuReader`. The helper does not wait; the caller does."""
        found: tuple[GpuEvent, ...] = self._ask("events")
        if not found and limit_s > 0:
            threading.Event().wait(min(limit_s, self._limit_s))
            found = self._ask("events")
        return found

    def set_mig_mode(self, uuid: str, enabled: bool) -> Activation:
        """See `GpuAdmin`."""
        return self._ask("set_mig_mode", uuid=uuid, enabled=enabled)  # type: ignore[no-any-return]

    def create_gpu_instance(self, uuid: str, profile_id: int, placement: Placement) -> int:
        """See `GpuAdmin`."""
        place = {"start": placement.start, "size": placement.size}
        return self._ask("create_gpu_instance", uuid=uuid, profile_id=profile_id, **place)  # type: ignore[no-any-return]

    def create_compute_instance(self, uuid: str, gi_id: int) -> ComputeInstance:
        """See `GpuAdmin`."""
        return self._ask("create_compute_instance", uuid=uuid, gi_id=gi_id)  # type: ignore[no-any-return]

    def destroy_compute_instance(self, uuid: str, gi_id: int, ci_id: int) -> None:
        """See `GpuAdmin`."""
        self._ask("destroy_compute_instance", uuid=uuid, gi_id=gi_id, ci_id=ci_id)

    def destroy_gpu_instance(self, uuid: str, gi_id: int) -> None:
        """See `GpuAdmin`."""
        self._ask("destroy_gpu_instance", uuid=uuid, gi_id=gi_id)

    def set_power_cap(self, uuid: str, cap_mw: int | None) -> None:
        """See `GpuAdmin`; under the usual lease."""
        self._ask("set_power_cap", uuid=uuid, cap_mw=cap_mw)

    def lock_sm_clock(self, uuid: str, clock_mhz: int | None) -> None:
        """See `GpuAdmin`; under the usual lease."""
        self._ask("lock_sm_clock", uuid=uuid, clock_mhz=clock_mhz)

    def hold_power(
        self, uuid: str, setting: Setting, safety_cap_mw: int | None = None, lease_s: float = LEASE_S
    ) -> None:
        """Sets a board under a lease, or renews it; when it ends the board goes back to its default."""
        self._ask(
            "hold_power",
            uuid=uuid,
            cap_mw=setting.cap_mw,
            clock_mhz=setting.clock_mhz,
            safety_cap_mw=safety_cap_mw,
            lease_s=lease_s,
        )

    def release_power(self, uuid: str) -> None:
        """Ends a lease now."""
        self._ask("release_power", uuid=uuid)

    def _ask(self, name: str, **arguments: Any) -> Any:
        with self._lock:
            self._number += 1
            try:
                line = self._exchange(request_line(self._number, name, arguments))
                return read_answer(line, self._number, VERBS[name].answer)
            except OSError as error:
                self._drop()
                raise HelperAway(f"{self._path}: {error}; is the helper running, and may this user open it?") from error
            except HelperAway:
                self._drop()
                raise

    def _exchange(self, request: bytes) -> bytes:
        ends_s = time.monotonic() + self._limit_s
        connection = self._socket = self._socket or self._connect()
        connection.settimeout(self._limit_s)
        connection.sendall(request)
        answer = bytearray()
        while not answer.endswith(b"\n"):
            connection.settimeout(max(0.001, ends_s - time.monotonic()))
            piece = connection.recv(1 << 16)
            if not piece or len(answer) > MAX_ANSWER_BYTES:
                raise ConnectionError("the helper closed the connection" if not piece else "endless answer")
            answer += piece
        return bytes(answer)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._limit_s)
        try:
            connection.connect(os.fspath(self._path))
        except OSError:
            connection.close()
            raise
        return connection

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
