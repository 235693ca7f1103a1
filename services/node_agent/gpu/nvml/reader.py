"""`GpuReader` over NVML."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import pynvml

from services.node_agent.core.mig.model import DeviceTable
from services.node_agent.gpu.faults import BoardLost
from services.node_agent.gpu.nvml import facts as asked
from services.node_agent.gpu.nvml.errors import fault_of, told
from services.node_agent.gpu.nvml.instances import list_instances
from services.node_agent.gpu.nvml.profiles import read_table
from services.node_agent.gpu.nvml.readings import read_board, read_processes
from services.node_agent.gpu.nvml.session import NvmlSession
from services.node_agent.gpu.nvml.slice_sampler import SliceSampler
from services.node_agent.gpu.nvml.watching import EventWatch
from services.node_agent.gpu.port import (
    BoardFacts,
    BoardReading,
    EventKind,
    GpuEvent,
    GpuInstance,
    GpuProcess,
    MigMode,
    SliceReading,
    SystemFacts,
)

Answer = TypeVar("Answer")


class NvmlReader:
    """See `GpuReader`.

    Args:
        session: open.
        now_s: monotonic clock.
    """

    def __init__(self, session: NvmlSession, now_s: Callable[[], float] = time.monotonic) -> None:
        self._session, self._now_s = session, now_s
        self._facts: dict[str, BoardFacts] = {}
        self._profile_ids: dict[str, tuple[int, ...]] = {}
        self._samplers: dict[str, SliceSampler] = {}
        self._watch = EventWatch(session)

    def close(self) -> None:
        """Gives back what the reader holds of the library; the session stays open."""
        for sampler in self._samplers.values():
            sampler.close()
        self._watch.close()

    def system(self) -> SystemFacts:
        """See `GpuReader`."""
        try:
            return asked.read_system()
        except pynvml.NVMLError as error:
            raise fault_of(error) from error

    def boards(self) -> tuple[BoardFacts, ...]:
        """See `GpuReader`. Looks at the machine anew."""
        self._session.rescan()
        buses: dict[str, str] = {}
        for uuid in self._session.uuids:
            bus = self._unless_lost(uuid, asked.bus_id)
            if bus is not None:
                buses[bus] = uuid
        facts = (
            self._unless_lost(uuid, partial(asked.read_facts, uuid=uuid, uuid_by_bus_id=buses))
            for uuid in buses.values()
        )
        self._facts = {one.uuid: one for one in facts if one is not None}
        return tuple(self._facts.values())

    def lost(self) -> tuple[str, ...]:
        """See `GpuReader`."""
        return self._session.lost

    def table(self, uuid: str) -> DeviceTable:
        """See `GpuReader`."""
        table = self._session.ask(uuid, lambda handle: read_table(handle, self._facts_of(uuid), _mode(handle).current))
        self._profile_ids[uuid] = tuple(profile.profile_id for profile in table.profiles)
        return table

    def mig_mode(self, uuid: str) -> MigMode:
        """See `GpuReader`."""
        return self._session.ask(uuid, _mode)

    def instances(self, uuid: str) -> tuple[GpuInstance, ...]:
        """See `GpuReader`."""
        if not self.mig_mode(uuid).current:
            return ()
        if uuid not in self._profile_ids:
            self.table(uuid)
        return self._session.ask(uuid, lambda handle: list_instances(handle, self._profile_ids[uuid]))

    def processes(self, uuid: str) -> tuple[GpuProcess, ...]:
        """See `GpuReader`."""
        sampler = self._sampler(uuid)
        return self._session.ask(uuid, lambda handle: read_processes(handle, sampler.devices))

    def read(self, uuid: str) -> BoardReading:
        """See `GpuReader`."""
        return self._session.ask(uuid, lambda handle: read_board(handle, _mode_on(handle)))

    def read_slices(self, uuid: str) -> tuple[SliceReading, ...]:
        """See `GpuReader`."""
        return self._session.ask(uuid, self._sampler(uuid).read)

    def events(self, limit_s: float) -> tuple[GpuEvent, ...]:
        """See `GpuReader`."""
        found = self._watch.wait(limit_s)
        for event in found:
            if event.kind is EventKind.MIG_CHANGED:
                self.forget_slices(event.uuid)
        return found

    def forget_slices(self, uuid: str) -> None:
        """Slices of the board may have changed: the next reading lists them anew."""
        self._sampler(uuid).forget()

    def _sampler(self, uuid: str) -> SliceSampler:
        return self._samplers.setdefault(uuid, SliceSampler(self._now_s))

    def _facts_of(self, uuid: str) -> BoardFacts:
        if uuid not in self._facts:
            self._facts[uuid] = self._session.ask(uuid, lambda handle: asked.read_facts(handle, uuid, {}))
        return self._facts[uuid]

    def _unless_lost(self, uuid: str, question: Callable[[Any], Answer]) -> Answer | None:
        try:
            return self._session.ask(uuid, question)
        except BoardLost:
            return None


def _mode(handle: Any) -> MigMode:
    answer = told(pynvml.nvmlDeviceGetMigMode, handle)
    return MigMode(bool(answer[0]), bool(answer[1])) if answer is not None else MigMode(False, False)


def _mode_on(handle: Any) -> bool:
    return _mode(handle).current
