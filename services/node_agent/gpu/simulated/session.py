"""A session with a simulated machine's driver: `GpuReader` and `GpuAdmin`. It ends with a reboot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from services.node_agent.core.mig.model import DeviceTable, Placement
from services.node_agent.gpu.faults import BoardLost, NoDriver
from services.node_agent.gpu.port import (
    Activation,
    BoardFacts,
    BoardReading,
    ComputeInstance,
    EventKind,
    GpuEvent,
    GpuInstance,
    GpuProcess,
    MigMode,
    SliceReading,
    SystemFacts,
)
from services.node_agent.gpu.simulated.board import SimulatedBoard
from services.node_agent.gpu.simulated.machine import SimulatedMachine

Answer = TypeVar("Answer")


class SimulatedGpus:
    """See `GpuReader` and `GpuAdmin`.

    Args:
        machine: the hardware.
    """

    def __init__(self, machine: SimulatedMachine) -> None:
        self._machine, self._boot_id = machine, machine.boot_id
        self._events_seen = machine.events_told

    def system(self) -> SystemFacts:
        """See `GpuReader`."""
        return self._call("system", "", lambda: SystemFacts("simulated", "simulated", ""))

    def boards(self) -> tuple[BoardFacts, ...]:
        """See `GpuReader`."""
        machine = self._machine
        return self._call("boards", "", lambda: tuple(b.facts(machine.peers(b)) for b in machine.boards if not b.lost))

    def lost(self) -> tuple[str, ...]:
        """See `GpuReader`."""
        return self._call("lost", "", lambda: tuple(b.uuid for b in self._machine.boards if b.lost))

    def table(self, uuid: str) -> DeviceTable:
        """See `GpuReader`."""
        return self._ask("table", uuid, lambda board: board.table)

    def mig_mode(self, uuid: str) -> MigMode:
        """See `GpuReader`."""
        return self._ask("mig_mode", uuid, SimulatedBoard.mode)

    def instances(self, uuid: str) -> tuple[GpuInstance, ...]:
        """See `GpuReader`."""
        return self._ask("instances", uuid, lambda board: board.slices.all())

    def processes(self, uuid: str) -> tuple[GpuProcess, ...]:
        """See `GpuReader`."""
        return self._ask("processes", uuid, SimulatedBoard.processes)

    def read(self, uuid: str) -> BoardReading:
        """See `GpuReader`."""
        return self._ask("read", uuid, SimulatedBoard.read)

    def read_slices(self, uuid: str) -> tuple[SliceReading, ...]:
        """See `GpuReader`."""
        return self._ask("read_slices", uuid, SimulatedBoard.read_slices)

    def events(self, limit_s: float) -> tuple[GpuEvent, ...]:
        """See `GpuReader`."""
        if self._events_seen >= self._machine.events_told:
            self._machine.pause(limit_s)
        return self._call("events", "", self._new_events)

    def set_mig_mode(self, uuid: str, enabled: bool) -> Activation:
        """See `GpuAdmin`."""
        return self._change("set_mig_mode", uuid, lambda board: board.set_mode(enabled))

    def create_gpu_instance(self, uuid: str, profile_id: int, placement: Placement) -> int:
        """See `GpuAdmin`."""
        return self._change("create_gpu_instance", uuid, lambda board: board.slices.create(profile_id, placement))

    def create_compute_instance(self, uuid: str, gi_id: int) -> ComputeInstance:
        """See `GpuAdmin`."""
        return self._change("create_compute_instance", uuid, lambda board: board.slices.create_compute(gi_id))

    def destroy_compute_instance(self, uuid: str, gi_id: int, ci_id: int) -> None:
        """See `GpuAdmin`."""
        self._change("destroy_compute_instance", uuid, lambda board: board.slices.destroy_compute(gi_id, ci_id))

    def destroy_gpu_instance(self, uuid: str, gi_id: int) -> None:
        """See `GpuAdmin`."""
        self._change("destroy_gpu_instance", uuid, lambda board: board.slices.destroy(gi_id))

    def set_power_cap(self, uuid: str, cap_mw: int | None) -> None:
        """See `GpuAdmin`."""
        self._ask("set_power_cap", uuid, lambda board: board.set_power_cap(cap_mw))

    def lock_sm_clock(self, uuid: str, clock_mhz: int | None) -> None:
        """See `GpuAdmin`."""
        self._ask("lock_sm_clock", uuid, lambda board: board.lock_sm_clock(clock_mhz))

    def _change(self, verb: str, uuid: str, change: Callable[[SimulatedBoard], Answer]) -> Answer:
        def changed(board: SimulatedBoard) -> Answer:
            answer = change(board)
            board.refresh_load()
            self._machine.tell(GpuEvent(uuid, EventKind.MIG_CHANGED))
            return answer

        return self._ask(verb, uuid, changed)

    def _ask(self, verb: str, uuid: str, question: Callable[[SimulatedBoard], Answer]) -> Answer:
        def asked() -> Answer:
            board = self._machine.board(uuid)
            if board.lost:
                raise BoardLost("the board does not answer any more; its node needs a reset or reboot", 15, uuid)
            return question(board)

        return self._call(verb, uuid, asked)

    def _call(self, verb: str, uuid: str, action: Callable[[], Answer]) -> Answer:
        if self._boot_id != self._machine.boot_id:
            raise NoDriver("this session is of an earlier boot; open a new one", 1)
        return self._machine.call(verb, uuid, action)

    def _new_events(self) -> tuple[GpuEvent, ...]:
        machine = self._machine
        fresh = machine.events_told - self._events_seen
        self._events_seen = machine.events_told
        return tuple(machine.events[-fresh:]) if fresh else ()
