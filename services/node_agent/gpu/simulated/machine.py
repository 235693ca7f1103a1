"""A simulated machine: boards that outlive every session, the boot, faults, and a count of all calls."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from services.node_agent.gpu.faults import DriverTrouble, NotThere
from services.node_agent.gpu.port import EventKind, GpuEvent
from services.node_agent.gpu.simulated.board import SimulatedBoard
from services.node_agent.gpu.simulated.faults import Fault, FaultKind, FaultQueue
from services.node_agent.gpu.simulated.products import Product
from services.node_agent.gpu.simulated.slices import SimulatedProcess
from services.node_agent.gpu.simulated.strikes import raise_answer, strike

Answer = TypeVar("Answer")

# Unread events are kept up to this many, as a driver keeps them: older ones are gone.
MAX_EVENTS: Final = 256


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has ended: its number since the machine was made, and what it was."""

    number: int
    verb: str
    uuid: str


class SimulatedMachine:
    """The hardware and its driver.

    Args:
        products: the boards, in the driver's order.
        seed: of UUIDs and boot ids.
        now_s: monotonic clock.
        pause: lets so many seconds pass, for calls that hang; by default a hang takes no time.
    """

    def __init__(
        self,
        products: Sequence[Product],
        seed: int,
        now_s: Callable[[], float],
        pause: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._seed, self.now_s, self.pause = seed, now_s, pause
        self._names, self._boots, self._calls = 0, 0, 0
        self.boot_id = self._new_uuid("boot")
        self.boards = tuple(self._board(index, product) for index, product in enumerate(products))
        self.after_call: Callable[[Call], None] | None = None
        self.events: list[GpuEvent] = []
        self.events_told = 0
        self._faults = FaultQueue()
        self._lock = threading.RLock()

    @property
    def calls(self) -> int:
        """Calls so far, of all sessions."""
        return self._calls

    def board(self, uuid: str) -> SimulatedBoard:
        """A board, lost or not.

        Raises:
            NotThere: no such board.
        """
        for board in self.boards:
            if board.uuid == uuid:
                return board
        raise NotThere(f"no board {uuid!r}; there are {', '.join(b.uuid for b in self.boards)}", 6, uuid)

    def peers(self, board: SimulatedBoard) -> tuple[str, ...]:
        """Boards of the same product are linked."""
        return tuple(b.uuid for b in self.boards if b is not board and b.product is board.product)

    def inject(self, *faults: Fault) -> None:
        """Adds faults."""
        for fault in faults:
            self._faults.add(fault)

    def reboot(self) -> None:
        """The machine starts anew: see `SimulatedBoard.reset`. Sessions from before answer no more."""
        with self._lock:
            self._boots += 1
            self.boot_id = self._new_uuid("boot")
            self.events.clear()
            for board in self.boards:
                board.reset(rebooted=True)

    def reset(self, uuid: str) -> None:
        """One board is reset."""
        with self._lock:
            self.board(uuid).reset(rebooted=False)

    def start_process(self, uuid: str, process: SimulatedProcess) -> None:
        """A process opens a board or a slice."""
        with self._lock:
            self.board(uuid).start_process(process)

    def end_process(self, uuid: str, pid: int) -> None:
        """It ends."""
        with self._lock:
            self.board(uuid).end_process(pid)

    def set_load(self, uuid: str, gi_id: int | None, sm: float, dram: float = 0.0) -> None:
        """What is at work from now on; see `SimulatedBoard.set_load`."""
        with self._lock:
            self.board(uuid).set_load(gi_id, sm, dram)

    def lose(self, uuid: str) -> None:
        """A board falls off the bus."""
        with self._lock:
            self.board(uuid).lost = True

    def tell(self, event: GpuEvent) -> None:
        """The driver tells of something."""
        with self._lock:
            self.events.append(event)
            self.events_told += 1
            del self.events[:-MAX_EVENTS]

    def call(self, verb: str, uuid: str, action: Callable[[], Answer]) -> Answer:
        """Runs one call: faults strike, the action happens, `after_call` hears of it.

        Raises:
            GpuError: of the action or of a fault.
        """
        with self._lock:
            struck = self._faults.strikes(verb, uuid)
            self._calls += 1
            call = Call(self._calls, verb, uuid)
        for fault in struck:
            if fault.kind is FaultKind.HANG:
                self.pause(fault.number)
        try:
            with self._lock:
                for fault in struck:
                    self._strike(fault, uuid)
                answer = action()
            if any(fault.kind is FaultKind.LOST_REPLY for fault in struck):
                raise DriverTrouble(f"{verb}: time-out; it may have been done", 10, uuid)
            return answer
        finally:
            if self.after_call is not None:
                self.after_call(call)

    def _strike(self, fault: Fault, uuid: str) -> None:
        raise_answer(fault, uuid)
        if uuid and strike(self.board(uuid), fault, self.now_s()):
            self.tell(GpuEvent(uuid, EventKind.MIG_CHANGED))

    def _board(self, index: int, product: Product) -> SimulatedBoard:
        uuid = self._new_uuid("GPU")
        return SimulatedBoard(
            product, uuid, f"00000000:{index + 1:02X}:00.0", self.now_s, lambda: self._new_uuid("MIG")
        )

    def _new_uuid(self, kind: str) -> str:
        self._names += 1
        digits = hashlib.sha256(f"{self._seed}/{kind}/{self._names}".encode()).hexdigest()
        text = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))
        return text if kind == "boot" else f"{kind}-{text}"
