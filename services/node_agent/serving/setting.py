"""The setting a measurement runs at: held where this agent sets boards, refused where nothing can be set."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from services.node_agent.core.power import Setting
from services.node_agent.devices.port import Device, DeviceKind
from services.node_agent.gpu.managed_boards import ManagedBoards, Still
from tradewind.domain.errors import InvalidField


def at_setting(managed: ManagedBoards | None, device: Device, setting: Setting) -> AbstractAsyncContextManager[Still]:
    """A device at a setting for as long as something is measured on it; see `ManagedBoards.at_setting`.

    Raises:
        InvalidField: nothing of this device can be set here, and another setting than its default is asked for.
    """
    device_id = device.facts.device_id
    managed_soon = setting != Setting() and bool(device.facts.power_settings)
    if managed is not None and (device_id in managed.uuids or managed_soon):
        return managed.at_setting(device_id, setting)
    if setting == Setting():
        return _as_it_is()
    raise InvalidField("power", f"{device_id} cannot be set: {_why(device)}; leave power unset, or name another device")


def _why(device: Device) -> str:
    if device.facts.kind is DeviceKind.NVIDIA_GPU:
        return "this agent may not; give it the privileged helper (docs/helper.md) and start it again"
    return f"a {device.facts.kind.name} device offers neither clocks nor caps"


@contextlib.asynccontextmanager
async def _as_it_is() -> AsyncIterator[Still]:
    yield _nothing


async def _nothing() -> None:
    return
