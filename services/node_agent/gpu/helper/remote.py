"""Boards read at the other end of a line: `GpuReader` out of one method that asks. Used by all that reads from afar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from services.node_agent.core.mig.model import DeviceTable
from services.node_agent.gpu.port import (
    BoardFacts,
    BoardReading,
    GpuEvent,
    GpuInstance,
    GpuProcess,
    MigMode,
    SliceReading,
    SystemFacts,
)


class RemoteReader(ABC):
    """See `GpuReader`."""

    @abstractmethod
    def _ask(self, name: str, **arguments: Any) -> Any:
        """The answer to a verb.

        Raises:
            GpuError: what the far end answered, or that it does not answer.
        """

    @abstractmethod
    def events(self, limit_s: float) -> tuple[GpuEvent, ...]:
        """See `GpuReader`."""

    def system(self) -> SystemFacts:
        """See `GpuReader`."""
        return self._ask("system")  # type: ignore[no-any-return]

    def boards(self) -> tuple[BoardFacts, ...]:
        """See `GpuReader`."""
        return self._ask("boards")  # type: ignore[no-any-return]

    def lost(self) -> tuple[str, ...]:
        """See `GpuReader`."""
        return self._ask("lost")  # type: ignore[no-any-return]

    def table(self, uuid: str) -> DeviceTable:
        """See `GpuReader`."""
        return self._ask("table", uuid=uuid)  # type: ignore[no-any-return]

    def mig_mode(self, uuid: str) -> MigMode:
        """See `GpuReader`."""
        return self._ask("mig_mode", uuid=uuid)  # type: ignore[no-any-return]

    def instances(self, uuid: str) -> tuple[GpuInstance, ...]:
        """See `GpuReader`."""
        return self._ask("instances", uuid=uuid)  # type: ignore[no-any-return]

    def processes(self, uuid: str) -> tuple[GpuProcess, ...]:
        """See `GpuReader`."""
        return self._ask("processes", uuid=uuid)  # type: ignore[no-any-return]

    def read(self, uuid: str) -> BoardReading:
        """See `GpuReader`."""
        return self._ask("read", uuid=uuid)  # type: ignore[no-any-return]

    def read_slices(self, uuid: str) -> tuple[SliceReading, ...]:
        """See `GpuReader`."""
        return self._ask("read_slices", uuid=uuid)  # type: ignore[no-any-return]
