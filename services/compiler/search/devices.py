"""What a search needs of devices that are not this machine's: somebody who times a module on one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.compiler.search.core.facts import Measured
from services.compiler.targets import Target
from tradewind.domain.manifest import Function
from tradewind.v1 import compiler_pb2


class DeviceTimer(Protocol):
    """Times modules on a device that runs their target."""

    @property
    def shares_machine(self) -> bool:
        """Whether it is on the compiler's own machine, whose jobs would disturb it."""

    async def time(self, variant: compiler_pb2.Variant, functions: Sequence[Function]) -> Measured:
        """What the functions of a signed module cost there.

        Args:
            variant: its id and manifest; its files can be fetched from this compiler while this runs.
            functions: of the module.

        Raises:
            CompileFailed: the device does not run this module; metadata names the node.
            WrongAnswer: it runs it, and the answer is not the source's; metadata names the node.
            ServiceUnavailable: the device is away, or does not measure for a reason of its own.
        """


class DeviceTimers(Protocol):
    """Devices that are there now."""

    async def timer_of(self, target: Target) -> DeviceTimer | None:
        """A timer for a target; None when no device but this machine runs it."""


class NoDevices:
    """Nobody else's devices: a compiler that stands alone."""

    async def timer_of(self, target: Target) -> DeviceTimer | None:
        """See `DeviceTimers`."""
        return None
