"""What a search needs of devices that are not this machine's: somebody who times a variant on one."""

from __future__ import annotations

from typing import Protocol

from services.compiler.search.core.facts import Measured
from tradewind.v1 import compiler_pb2


class DeviceTimer(Protocol):
    """Times a variant on a device that runs its target."""

    async def time(self, variant: compiler_pb2.Variant) -> Measured | None:
        """What its functions cost there; None when no device gave an answer."""


class DeviceTimers(Protocol):
    """Devices that are there now."""

    async def timer_of(self, target: str, resolved: str) -> DeviceTimer | None:
        """A timer for a target, by its name or by what it stands for; None when no device runs it."""


class NoDevices:
    """Nobody else's devices: a compiler that stands alone."""

    async def timer_of(self, target: str, resolved: str) -> DeviceTimer | None:
        """See `DeviceTimers`."""
        return None
