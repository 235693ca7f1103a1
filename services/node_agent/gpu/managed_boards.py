"""All boards that this node cuts and sets. Nothing here blocks the event loop.

The agent starts without them: the helper may come later, and go and come back at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import structlog

from services.node_agent.core.easing import Easing
from services.node_agent.core.mig.goal import Order
from services.node_agent.core.power import WAKE_S, OutOfBounds, Setting, Sleep, exactly
from services.node_agent.core.target import Target
from services.node_agent.devices.port import Partition
from services.node_agent.gpu.bounds import bounds_of
from services.node_agent.gpu.executor.board import AT_ONCE_S, Access, Planners
from services.node_agent.gpu.executor.look import Held
from services.node_agent.gpu.faults import GpuError
from services.node_agent.gpu.governor import AtWork, Governor
from services.node_agent.gpu.helper.client import HelperClient
from services.node_agent.gpu.managed_board import ManagedBoard
from services.node_agent.gpu.port import GpuAdmin, GpuReader
from services.node_agent.gpu.power_keeper import PERIOD_S, Holder, KeptBoard, OwnHolder, PowerKeeper, kept_board
from services.node_agent.gpu.status import layout_status, power_status
from tradewind.domain.errors import DeviceFault, InUse, InvalidField, ServiceUnavailable
from tradewind.rpc.service import end_task
from tradewind.v1 import node_pb2

Answer = TypeVar("Answer")
Still = Callable[[], Awaitable[None]]
# Between two attempts to reach a helper that is not there yet.
DISCOVERY_S: Final = 2.0
# A helper that answers at all answers a release within this; one that does not ends the lease.
RELEASE_LIMIT_S: Final = 2.0
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
        await self._end_measuring()
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

    @contextlib.asynccontextmanager
    async def at_setting(self, uuid: str, setting: Setting) -> AsyncIterator[Still]:
        """A board at a setting for as long as something is measured on it, whatever the target says.

        Another setting than the target's wants the board to itself, since clocks and caps act on all of it. What is
        given is to be asked now and then: it raises once the setting is not in force any more, also because a replica
        came, which goes before.

        Raises:
            InvalidField: the board has no such setting.
            InUse: somebody else has a part of the board, or came meanwhile, or sets it otherwise.
            DeviceFault: the board does not take the setting.
            ServiceUnavailable: the helper does not answer.
        """
        board, power = self._boards.get(uuid), self._power
        if board is None or power is None:
            raise ServiceUnavailable(
                f"the privileged helper, which sets {uuid}, does not answer yet; see docs/helper.md",
                {"service": "gpu-helper"},
            )
        answer = exactly(setting, bounds_of(board.facts))
        if isinstance(answer, OutOfBounds):
            raise InvalidField(f"power.{answer.name}", answer.words)
        if setting != power.targeted(uuid) and (others := await self._others(board)):
            raise InUse(
                f"clocks and caps act on all of {uuid}, which is in use by {', '.join(others)}; measure on a board "
                "with nothing on it",
                {"holder": others[0]},
            )
        mark = self._mark(uuid)
        power.measure_at(uuid, setting)
        try:
            mark.touch()
            await self._in_thread(power.look)
            if setting != Setting() and (words := power.states[uuid].refusal):
                raise DeviceFault(f"{uuid} does not take the setting: {words}", {"device": uuid})
            if setting.cap_mw is not None and power.states[uuid].admitted.cap_mw != setting.cap_mw:
                raise InUse(
                    f"the node's power budget leaves {uuid} less than {setting.cap_mw / 1000:.0f} W; raise the budget, "
                    "or measure at a lower cap",
                    {"holder": "the power budget"},
                )
            yield lambda: self._still(power, uuid, setting)
        finally:
            power.measured(uuid)
            mark.unlink(missing_ok=True)
            self._news[""].set()

    def _mark(self, uuid: str) -> Path:
        """There while a board is measured: an agent that finds one at its start was killed meanwhile."""
        return self._around.folder / f"{uuid}.measured"

    async def _still(self, power: PowerKeeper, uuid: str, setting: Setting) -> None:
        if setting == Setting() == power.targeted(uuid):
            return
        await self._in_thread(power.look)
        if not power.measures(uuid):
            raise InUse(f"a replica came to {uuid}, so that its clock was given up; measure again", {"holder": uuid})
        if words := power.states[uuid].not_in_force:
            raise InUse(f"{uuid} is set otherwise by somebody else: {words}; stop that and measure again")

    async def _others(self, board: ManagedBoard) -> tuple[str, ...]:
        """Who has a part of a board: replicas, slices of others, processes that are none of this node's replicas."""
        if replicas := self._serving(board.facts.uuid):
            return replicas
        if foreign := board.state.foreign:
            return tuple(f"a slice {kind} of somebody else" for kind in foreign)
        try:
            found = await self._in_thread(lambda: self._reach.reader.processes(board.facts.uuid))
        except GpuError as error:
            raise ServiceUnavailable(
                f"who works on {board.facts.uuid} cannot be read ({error.message}); see docs/helper.md",
                {"service": "gpu-helper"},
            ) from error
        return tuple(f"process {one.pid}" for one in found)

    async def _end_measuring(self) -> None:
        """Gives boards back that are being measured when the agent stops; else their leases would, later."""
        if (power := self._power) is not None and power.measuring:
            for uuid in self._boards:
                power.measured(uuid)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELEASE_LIMIT_S):
                    await self._in_thread(power.look)

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
        kept = [self._kept(board) for board in self._boards.values()]
        left = frozenset(uuid for uuid in self._boards if self._mark(uuid).exists())
        for uuid in left:
            self._mark(uuid).unlink()
        self._power = PowerKeeper(reach.reader, reach.holder, kept, around.budget_mw, left)
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
            soon = power.measuring or any(one.asleep for one in power.sleeps.values())
            await self._wait("", WAKE_S if soon else PERIOD_S)

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

    def _kept(self, board: ManagedBoard) -> KeptBoard:
        """For the keeper; while something is measured no board of the node sleeps."""
        uuid, measuring = board.facts.uuid, self._around.measuring
        return kept_board(
            board.facts,
            _count_of(board),
            busy=lambda: measuring() or bool(self._serving(uuid)),
            serving=lambda: bool(self._serving(uuid)),
        )

    def _serving(self, uuid: str) -> tuple[str, ...]:
        """Replicas that have a part of a board, in words."""
        held = self._around.held()
        return tuple(words for name, replicas in held.items() if name.startswith(f"{uuid}:") for words in replicas)

    def _tell(self, board: ManagedBoard, target: Target) -> None:
        mine = [one for one in target.partitions if one.device_id == board.facts.uuid]
        # A board of which no partition is named is left as it is.
        if mine:
            board.want(Order(target.fencing, target.generation, target.step), mine)


def _count_of(board: ManagedBoard) -> Callable[[], int]:
    return lambda: sum(one.uuid != board.facts.uuid for one in board.state.partitions)
