"""A board, an executor that can be killed and started again, and the machine that outlives it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.node_agent.core.mig.goal import Order, Wish
from services.node_agent.core.mig.ledger import Outcome
from services.node_agent.core.mig.model import DeviceTable, Layout, Slice
from services.node_agent.gpu.executor.board import POLL_S, Access, BoardExecutor, Planners
from services.node_agent.gpu.executor.journal import LONGEST_BYTES, Journal
from services.node_agent.gpu.executor.look import slice_of
from services.node_agent.gpu.executor.state import Doing
from services.node_agent.gpu.port import GpuAdmin, GpuReader
from services.node_agent.gpu.simulated import SimulatedGpus, SimulatedMachine, simulated_machine

# More turns than any change of one board takes, tries and the way back included.
MOST_TURNS: Final = 400


class Killed(BaseException):
    """The process was killed here."""


@dataclass
class Clock:
    """Seconds that pass only when somebody waits."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class Bench:
    """One board of a simulated machine, and the executor of the moment.

    `mode_on`: MIG is on already, as an operator has to have it where that takes a reset.
    """

    folder: Path
    text: str = "h100-80"
    adopt: bool = False
    sync: Callable[[int], None] = os.fsync
    longest_bytes: int = LONGEST_BYTES
    held: dict[str, tuple[str, ...]] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    planners: Planners = field(default_factory=Planners)
    mode_on: bool = False

    def __post_init__(self) -> None:
        self.machine: SimulatedMachine = simulated_machine(self.text, 1, self.clock, self.clock.pause)
        self.uuid = self.machine.boards[0].uuid
        if self.mode_on:
            self.machine.boards[0].set_mode(True)
        self.executor: BoardExecutor
        self.starts = 0
        self.start()

    @property
    def table(self) -> DeviceTable:
        return self.machine.boards[0].table

    def start(self) -> None:
        """A new process: nothing is left of the one before but its journal."""
        if self.starts:
            self.executor.close()
        self.starts += 1
        gpus = SimulatedGpus(self.machine)
        reader: GpuReader = gpus
        admin: GpuAdmin = gpus
        board = self.machine.board(self.uuid).facts(())
        access = Access(reader, admin, self._held, self.machine.boot_id, self.planners, self.adopt)
        self.executor = BoardExecutor(
            board, access, Journal(self.folder / "board.journal", self.sync, self.longest_bytes)
        )

    def _held(self) -> Mapping[str, tuple[str, ...]]:
        return self.held

    def run(self, limit_s: float = 120.0) -> None:
        """Turns until nothing is left to do, or until the limit of simulated seconds."""
        end_s = self.clock.now_s + limit_s
        for _ in range(MOST_TURNS):
            turn = self.executor.turn()
            state = self.executor.state
            if state.doing is Doing.NOTHING and turn.pause_s == POLL_S:
                return
            self.clock.pause(turn.pause_s)
            if self.clock.now_s > end_s:
                return
        raise AssertionError(f"still at it after {MOST_TURNS} turns: {self.executor.state}")

    def reach(self, wish: Wish) -> Outcome | None:
        """Wishes, runs, and says how it ended."""
        self.executor.want(wish)
        self.run()
        return self.outcome

    @property
    def outcome(self) -> Outcome | None:
        last = self.executor.state.last
        return last.outcome if last else None

    @property
    def layout(self) -> Layout:
        """What stands, read from the board itself."""
        return Layout.of(slice_of(one) for one in self.machine.board(self.uuid).slices.all())

    @property
    def uuids(self) -> dict[Slice, str]:
        return {slice_of(one): one.compute[0].uuid for one in self.machine.board(self.uuid).slices.all() if one.compute}

    @property
    def orphans(self) -> list[int]:
        """GPU instances that nobody can open."""
        return [one.gi_id for one in self.machine.board(self.uuid).slices.all() if not one.compute]

    def gi_id(self, place: Slice) -> int:
        return next(one.gi_id for one in self.machine.board(self.uuid).slices.all() if slice_of(one) == place)

    def wish(self, layout: Layout, generation: int = 1, fencing: int = 1, step: int = 0) -> Wish:
        """A wish for slices at these places."""
        return Wish(Order(fencing, generation, step), True, tuple(sorted(layout.counts().items())), layout.slices)
