"""All boards that this node cuts and sets. Nothing here blocks the event loop.

The agent starts without them: the helper may come later, and go and come back at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import structlog

from services.node_agent.core.easing import Easing
from services.node_agent.core.mig.goal import Order
from services.node_agent.core.power import WAKE_S, Sleep
from services.node_agent.core.target import Target
from services.node_agent.devices.port import Partition
from services.node_agent.gpu.executor.board import AT_ONCE_S, Access, Planners
from services.node_agent.gpu.executor.look import Held
from services.node_agent.gpu.faults import GpuError
from services.node_agent.gpu.governor import AtWork, Governor
from services.node_agent.gpu.helper.client import HelperClient
from services.node_agent.gpu.managed_board import ManagedBoard
from services.node_agent.gpu.port import GpuAdmin, GpuReader
from services.node_agent.gpu.power_keeper import PERIOD_S, Holder, OwnHolder, PowerKeeper, kept_board
from services.node_agent.gpu.status import layout_status, power_status
from tradewind.rpc.service import end_task
from tradewind.v1 import node_pb2

Answer = TypeVar("Answer")
# Between two attempts to reach a helper that is not there yet.
DISCOVERY_S: Final = 2.0
# A thread for each board of the largest host, one for power, one for clocks: one that hangs holds up no other.
MOST_THREADS: Final = 18


@dataclass(frozen=True, slots=True)
class Reach:
    """How boards are reached.

    Attributes:
        reader: reads.
        admin: changes slices.
        holder: sets clocks and caps.
        abort: ends a call in hand, so that a process which stops need not wait for it.
    """

    reader: GpuReader
    admin: GpuAdmin
    holder: Holder
    abort: Callable[[], None]

    @classmethod
    def through(cls, client: HelperClient) -> Reach:
        """Through the privileged helper."""
        return cls(client, client, client, client.abort)

    @classmethod
    def directly(cls, reader: GpuReader, admin: GpuAdmin) -> Reach:
        """Simulated boards of this process."""
        return cls(reader, admin, OwnHolder(admin), lambda: None)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What managed boards need of the agent.

    Attributes:
        folder: for journals; is made when missing.
        boot_id: of the machine.
        held: replicas by the partition they have.
        measuring: whether something is measured on this node.
        changed: called when there is something new to report.
        at_work: replicas of a board that have requests in hand.
        adopt: whether slices that nobody knows become ours.
        budget_mw: of all boards together; None for none.
    """

    folder: Path
    boot_id: str
    held: Held
    measuring: Callable[[], bool]
    changed: Callable[[], None]
    at_work: AtWork
    adopt: bool
    budget_mw: int | None


class ManagedBoards:
    """See the module.

    Args:
        reach: how they are reached.
        around: the agent.
    """

    def __init__(self, reach: Reach, around: Surroundings) -> None:
        self._reach, self._around = reach, around
        self._pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="board")
        self._boards: dict[str, ManagedBoard] = {}
        self._power: PowerKeeper | None = None
        self._target: Target | None = None
        self._news: dict[str, asyncio.Event] = {}
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("boards")

    def start(self) -> None:
        """Begins to look for them."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stops all turns; a change under way goes on when the agent is started again. Idempotent."""
        if self._task is not None:
            task, self._task = self._task, None
            await end_task(task)
        self._reach.abort()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for board in self._boards.values():
            board.close()

    def want(self, target: Target) -> None:
        """Follows a target from now on."""
        self._target = target
        for uuid, board in self._boards.items():
            self._tell(board, target)
            self._news[uuid].set()
        if self._power is not None:
            self._power.want(dict(target.power), target.asleep)
            self._news[""].set()

    @property
    def uuids(self) -> frozenset[str]:
        """Boards that are managed; none before the helper answered."""
        return frozenset(self._boards)

    def partitions(self) -> tuple[Partition, ...]:
        """Partitions that can be opened, of all boards."""
        return tuple(
            Partition(one.partition_id, board.facts.uuid, one.kind, (), one.memory_bytes, one.uuid)
            for board in self._boards.values()
            for one in board.state.partitions
        )

    def strangers(self, standing: Iterable[Partition]) -> set[str]:
        """UUIDs of slices on managed boards that are not ours, out of those that stand on any board."""
        ours = {one.uuid for one in self.partitions()}
        return {one.uuid for one in standing if one.device_id in self._boards and one.uuid not in ours}

    def layouts(self) -> list[node_pb2.LayoutStatus]:
        """What goes on with each board's layout."""
        return [layout_status(board.state, board.refusal, board.taken) for board in self._boards.values()]

    def power_states(self) -> list[node_pb2.PowerStatus]:
        """Power of each board."""
        return [power_status(uuid, state) for uuid, state in self._power.states.items()] if self._power else []

    def sleeps(self) -> dict[str, Sleep]:
        """Boards that can sleep."""
        return self._power.sleeps if self._power else {}

    def easings(self) -> dict[str, Easing]:
        """Boards that have a clock to ease to."""
        return self._power.easings if self._power else {}

    async def _run(self) -> None:
        await self._discover()
        async with asyncio.TaskGroup() as group:
            for board in self._boards.values():
                group.create_task(self._keep_layout(board))
            group.create_task(self._keep_power())
            group.create_task(self._govern())

    async def _discover(self) -> None:
        self._around.folder.mkdir(parents=True, exist_ok=True)
        told = ""
        while True:
            try:
                found = await self._in_thread(self._reach.reader.boards)
                break
            except GpuError as error:
                if error.message != told:
                    told = error.message
                    self._log.warning("boards are not managed yet", error=told)
            await asyncio.sleep(DISCOVERY_S)
        reach, around, planners = self._reach, self._around, Planners()
        access = Access(reach.reader, reach.admin, around.held, around.boot_id, planners, around.adopt)
        self._boards = {facts.uuid: ManagedBoard(facts, access, around.folder) for facts in found}
        self._news = {uuid: asyncio.Event() for uuid in ("", *self._boards)}
        kept = [kept_board(b.facts, _count_of(b), self._busy_of(b.facts.uuid)) for b in self._boards.values()]
        self._power = PowerKeeper(reach.reader, reach.holder, kept, around.budget_mw)
        self._log.info("boards", uuids=list(self._boards))
        if self._target is not None:
            self.want(self._target)

    async def _keep_layout(self, board: ManagedBoard) -> None:
        while True:
            before = board.state, board.refusal
            pause_s = await self._in_thread(board.turn)
            if (board.state, board.refusal) != before:
                self._around.changed()
            if pause_s > AT_ONCE_S:
                await self._wait(board.facts.uuid, pause_s)

    async def _keep_power(self) -> None:
        power = self._power
        assert power is not None, "boards are discovered before they are kept"
        while True:
            before = dict(power.states), power.sleeps
            await self._in_thread(power.look)
            if (power.states, power.sleeps) != before:
                self._around.changed()
            await self._wait("", WAKE_S if any(one.asleep for one in power.sleeps.values()) else PERIOD_S)

    async def _govern(self) -> None:
        around, power = self._around, self._power
        assert power is not None, "boards are discovered before they are governed"
        governor = Governor(power, around.at_work, around.measuring, self._in_thread, time.monotonic)
        while True:
            pause_s = await governor.turn()
            await asyncio.sleep(pause_s)

    async def _wait(self, name: str, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._news[name].wait()
        self._news[name].clear()

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _busy_of(self, uuid: str) -> Callable[[], bool]:
        """Whether a replica has a part of the board; while something is measured no board of the node sleeps."""
        around = self._around
        return lambda: around.measuring() or any(name.startswith(f"{uuid}:") for name in around.held())

    def _tell(self, board: ManagedBoard, target: Target) -> None:
        mine = [one for one in target.partitions if one.device_id == board.facts.uuid]
        # A board of which no partition is named is left as it is.
        if mine:
            board.want(Order(target.fencing, target.generation, target.step), mine)


def _count_of(board: ManagedBoard) -> Callable[[], int]:
    return lambda: sum(one.uuid != board.facts.uuid for one in board.state.partitions)
