"""Replica processes that serve on slices of a simulated board, and load on them: agent and replicas are real.

A slice of a simulated board computes nothing: its process runs the CPU variant on the host's cores. So what is shown is
that changing a board leaves what serves on other slices alone (process, slice, requests), not how slices of a chip
disturb each other.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.node_agent.gpu.simulated import SimulatedGpus, SimulatedMachine
from services.node_agent.gpu.simulated.products import PRODUCTS
from tests.gpu.helper.process import Helper
from tests.gpu.helper.within import client_of_helper
from tests.node_agent.agent_process import NODE_ID, Agent, generate, tokens_of
from tests.node_agent.neighbours import (
    FileCompiler,
    Orchestrator,
    serve_compiler,
    serve_orchestrator,
    spec,
    target,
)
from tests.node_agent.wait import until
from tests.tiny_variant import TinyVariant
from tradewind.v1 import common_pb2, node_pb2

PROMPT, TOKENS = [1, 2, 3, 4, 5], 4
LAYOUT_LIMIT_S = 30.0


@dataclass
class Load:
    """Requests sent at a fixed pace, whether or not earlier ones have come back."""

    latencies_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def run(self, agent: Agent, replica_id: str, per_s: float, until_s: float) -> None:
        """Sends until a moment, and waits for every answer."""
        begun_s, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while time.monotonic() < until_s:
                group.create_task(self._one(agent, replica_id))
                sent += 1
                await asyncio.sleep(max(0.0, begun_s + sent / per_s - time.monotonic()))

    async def _one(self, agent: Agent, replica_id: str) -> None:
        begun_s = time.monotonic()
        try:
            answer = await generate(agent.inference, replica_id, PROMPT, max_tokens=TOKENS)
        except Exception as error:  # noqa: BLE001 - every failure of a request is what is counted here
            self.failures.append(repr(error))
            return
        if len(tokens_of(answer)) != TOKENS:
            self.failures.append(f"{len(tokens_of(answer))} tokens")
        self.latencies_s.append(time.monotonic() - begun_s)


@dataclass
class Board:
    """One simulated H100 that an agent cuts, and what is told to it.

    Attributes:
        power: its setting; None for the default.
        limits_ms: of its replicas, on the first token and on later ones; None without.
    """

    tiny: TinyVariant
    uuid: str
    orchestrator: Orchestrator
    agent: Agent
    generation: int = 0
    power: common_pb2.PowerSetting | None = None
    limits_ms: tuple[float, float] | None = None

    def tell(self, places: Sequence[str], **replicas: str) -> None:
        """A target: slices by "PROFILE@START", and the place of each replica, whose slice stands."""
        self.generation += 1
        standing = self.slices()
        message = target(NODE_ID, self.generation, *(self._spec(r, p, standing[p]) for r, p in replicas.items()))
        message.partitions.extend(
            common_pb2.Partition(partition_id=f"{self.uuid}:mig:{place}", device_id=self.uuid) for place in places
        )
        if self.power is not None:
            message.power_settings[self.uuid].CopyFrom(self.power)
        self.orchestrator.push(message)

    def slices(self) -> dict[str, common_pb2.Partition]:
        """What the node reports, by "PROFILE@START"."""
        found = [one for one in self.orchestrator.report.partitions if one.device_id == self.uuid]
        return {one.partition_id.rpartition(":")[2]: one for one in found}

    @property
    def layout(self) -> node_pb2.LayoutStatus:
        return self.orchestrator.report.layouts[0]

    async def ended(self, outcome: int, *places: str) -> None:
        """Waits for how the newest target's layout ended, with these slices."""

        def there() -> bool:
            told = (self.layout.generation, self.layout.outcome)
            return told == (self.generation, outcome) and set(self.slices()) == set(places)

        await until(there, LAYOUT_LIMIT_S, lambda: f"{self.layout} {sorted(self.slices())}")

    def _spec(self, replica_id: str, place: str, slice_: common_pb2.Partition) -> node_pb2.ReplicaSpec:
        made = spec(self.tiny, replica_id, cpu_ids=())
        made.partition.CopyFrom(slice_)
        if self.limits_ms is not None:
            made.ttft_limit_ms, made.tpot_limit_ms = self.limits_ms
        return made


@asynccontextmanager
async def failing_board(tiny: TinyVariant, folder: Path) -> AsyncIterator[tuple[Board, SimulatedMachine]]:
    """A board whose machine is in this process, behind the helper's server, so that it can be made to fail."""
    machine = SimulatedMachine([PRODUCTS["h100-80"]], 1, time.monotonic)
    gpus = SimulatedGpus(machine)
    helper = client_of_helper(gpus, gpus, folder)
    async with board_behind(helper._path, machine.boards[0].uuid, tiny, folder) as board:
        yield board, machine


@asynccontextmanager
async def serving_board(tiny: TinyVariant, folder: Path) -> AsyncIterator[Board]:
    """A board behind a helper process."""
    with tempfile.TemporaryDirectory() as place, Helper(Path(place) / "run", backend="simulated:h100-80") as helper:
        uuid = helper.client.boards()[0].uuid
        helper.client.close()
        async with board_behind(helper.socket, uuid, tiny, folder) as board:
            yield board


@asynccontextmanager
async def board_behind(helper: Path, uuid: str, tiny: TinyVariant, folder: Path) -> AsyncIterator[Board]:
    """Neighbours and an agent for the board of a helper."""
    compiler, orchestrator = FileCompiler(), Orchestrator()  # type: ignore[abstract]
    compiler.offer(tiny)
    servers = [await serve_compiler(compiler), await serve_orchestrator(orchestrator)]
    compiling, planning = (server.address for server in servers)
    settings = {"gpu_helper": str(helper), "cpu_ids": "0"}
    agent = Agent(folder / "state", compiling, planning, tiny.public_key_file.parent, **settings)
    try:
        await agent.start()
        await until(lambda: bool(orchestrator.reports) and len(orchestrator.report.layouts) == 1)
        yield Board(tiny, uuid, orchestrator, agent)
    finally:
        await agent.close()
        for server in servers:
            await server.stop(0)
