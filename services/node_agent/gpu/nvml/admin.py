"""`GpuAdmin` over NVML. Needs root; runs in the privileged helper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pynvml

from services.node_agent.core.mig.model import Placement
from services.node_agent.gpu.faults import DriverTrouble
from services.node_agent.gpu.nvml import instances
from services.node_agent.gpu.nvml.session import NvmlSession
from services.node_agent.gpu.port import Activation, ComputeInstance

Answer = TypeVar("Answer")


class NvmlAdmin:
    """See `GpuAdmin`.

    Args:
        session: open.
        changed: told the board's UUID after each change of its slices or mode.
    """

    def __init__(self, session: NvmlSession, changed: Callable[[str], None] = lambda _uuid: None) -> None:
        self._session, self._changed = session, changed

    def set_mig_mode(self, uuid: str, enabled: bool) -> Activation:
        """See `GpuAdmin`. The library raises nothing when the activation fails: its status is the answer."""
        status = self._change(uuid, lambda handle: int(pynvml.nvmlDeviceSetMigMode(handle, int(enabled))))
        # The driver may have detached the board: index and handle may differ now.
        self._session.rescan()
        try:
            return Activation(status)
        except ValueError:
            raise DriverTrouble(f"the mode was not activated (NVML {status}); read it again", status, uuid) from None

    def create_gpu_instance(self, uuid: str, profile_id: int, placement: Placement) -> int:
        """See `GpuAdmin`."""
        return self._change(uuid, lambda handle: instances.create_gpu_instance(handle, profile_id, placement))

    def create_compute_instance(self, uuid: str, gi_id: int) -> ComputeInstance:
        """See `GpuAdmin`."""
        return self._change(uuid, lambda handle: instances.create_compute_instance(handle, gi_id))

    def destroy_compute_instance(self, uuid: str, gi_id: int, ci_id: int) -> None:
        """See `GpuAdmin`."""
        self._change(uuid, lambda handle: instances.destroy_compute_instance(handle, gi_id, ci_id))

    def destroy_gpu_instance(self, uuid: str, gi_id: int) -> None:
        """See `GpuAdmin`."""
        self._change(uuid, lambda handle: instances.destroy_gpu_instance(handle, gi_id))

    def set_power_cap(self, uuid: str, cap_mw: int | None) -> None:
        """See `GpuAdmin`."""
        self._session.ask(uuid, lambda handle: _set_cap(handle, cap_mw))

    def lock_sm_clock(self, uuid: str, clock_mhz: int | None) -> None:
        """See `GpuAdmin`."""
        self._session.ask(uuid, lambda handle: _lock(handle, clock_mhz))

    def _change(self, uuid: str, change: Callable[[Any], Answer]) -> Answer:
        try:
            return self._session.ask(uuid, change)
        finally:
            self._changed(uuid)


def _set_cap(handle: Any, cap_mw: int | None) -> None:
    if cap_mw is None:
        cap_mw = pynvml.nvmlDeviceGetPowerManagementDefaultLimit(handle)
    pynvml.nvmlDeviceSetPowerManagementLimit(handle, cap_mw)


def _lock(handle: Any, clock_mhz: int | None) -> None:
    if clock_mhz is None:
        pynvml.nvmlDeviceResetGpuLockedClocks(handle)
    else:
        pynvml.nvmlDeviceSetGpuLockedClocks(handle, clock_mhz, clock_mhz)
