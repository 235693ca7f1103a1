"""From one command to a board that eases: profiler → agent → helper → profiles → plan → target → agent → clock.

Orchestrator, profiler, agent, helper's server, leases and replica process are real, over gRPC, PostgreSQL and Redis.
The board is simulated: a measurement's figures follow its clock, since its meter counts what the test has it draw.
"""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.node_agent.gpu.simulated import SimulatedGpus, SimulatedMachine
from services.node_agent.gpu.simulated.products import PRODUCTS
from services.profiler.app import start as start_profiler
from services.profiler.settings import ProfilerSettings
from tests.gpu.agent.test_measured_clocks import for_simulated_boards
from tests.gpu.helper.within import client_of_helper
from tests.node_agent.agent_process import NODE_ID, Agent
from tests.node_agent.neighbours import FileCompiler, serve_compiler
from tests.orchestrator.neighbours import Shelf
from tests.orchestrator.stand import Stand, new_id, until
from tests.tiny_variant import TinyVariant, build_tiny_variant
from tradewind.rpc.client import open_channel
from tradewind.rpc.service import Lifecycle
from tradewind.v1 import (
    compiler_pb2,
    node_pb2,
    operation_pb2,
    operation_pb2_grpc,
    orchestrator_pb2,
    profiler_pb2,
    profiler_pb2_grpc,
)

WHOLE, LOW_MHZ, WORK_S = "gpu/whole", 1080, 120.0


class Catalogue(FileCompiler):
    """One model and its one variant, with files."""

    def __init__(self, tiny: TinyVariant, keys: Path) -> None:
        super().__init__()
        self.offer(tiny)
        self.variant = for_simulated_boards(tiny, self, keys)
        self.model = compiler_pb2.Model()
        self.model.CopyFrom(tiny.model)
        self.model.name = "tiny"

    async def GetModel(self, request: Any, context: Any) -> compiler_pb2.GetModelResponse:
        return compiler_pb2.GetModelResponse(model=self.model)

    async def ListModels(self, request: Any, context: Any) -> compiler_pb2.ListModelsResponse:
        return compiler_pb2.ListModelsResponse(models=[self.model])

    async def ListVariants(self, request: Any, context: Any) -> compiler_pb2.ListVariantsResponse:
        return compiler_pb2.ListVariantsResponse(variants=[self.variant.variant])


@dataclass
class House:
    """Everything at work."""

    stand: Stand
    machine: SimulatedMachine
    profiler: str

    @property
    def board(self) -> Any:
        return self.machine.boards[0]

    async def profile(self) -> list[profiler_pb2.Profile]:
        """What `tradewind profile run tiny --sm-clock auto` does; the board is at work meanwhile."""
        self.machine.set_load(self.board.uuid, None, 1.0)
        request = profiler_pb2.RunProfileRequest(
            request_id=new_id(),
            model="tiny",
            partition_kinds=[WHOLE],
            prompt_tokens=[128],
            concurrencies=[1],
            planned_clocks=True,
        )
        async with open_channel(self.profiler) as channel:
            stub: Any = profiler_pb2_grpc.ProfilerServiceStub(channel)
            operations: Any = operation_pb2_grpc.OperationServiceStub(channel)
            begun = (await stub.RunProfile(request, timeout=10)).operation
            watch = operation_pb2.WatchOperationRequest(operation_id=begun.operation_id)
            *_, end = [one.operation async for one in operations.WatchOperation(watch, timeout=WORK_S)]
            assert end.state == operation_pb2.OPERATION_STATE_DONE, end.error.message
            found = await stub.ListProfiles(profiler_pb2.ListProfilesRequest(model="tiny"), timeout=10)
        self.machine.set_load(self.board.uuid, None, 0.0)
        return list(found.profiles)

    async def power(self) -> node_pb2.PowerStatus:
        """What the node reports of its board's setting."""
        (state,) = (await self.stand.nodes())[NODE_ID].report.power_states or [node_pb2.PowerStatus()]
        return state


@pytest.fixture(scope="module")
def tiny() -> TinyVariant:
    return build_tiny_variant()


@asynccontextmanager
async def house(tiny: TinyVariant, database_url: str, redis_url: str, folder: Path) -> AsyncIterator[House]:
    catalogue = Catalogue(tiny, folder / "keys")
    compiling = await serve_compiler(catalogue)
    settings = {"compiler_address": compiling.address, "profiler_address": f"127.0.0.1:{_free_port()}"}
    stand = Stand(Shelf(), "", database_url, redis_url, settings | {"suspect_after_s": 6.0, "lost_after_s": 20.0})  # type: ignore[abstract]
    await stand.up()
    life = Lifecycle()
    own = {"listen": settings["profiler_address"], "orchestrator_address": stand.address}
    await start_profiler(
        life,
        ProfilerSettings(state_dir=folder, database_url=database_url, compiler_address=compiling.address, **own),
    )
    machine = SimulatedMachine([PRODUCTS["h100-80"]], 1, time.monotonic)
    gpus = SimulatedGpus(machine)
    helper = client_of_helper(gpus, gpus, folder)._path
    agent = Agent(
        folder / "state", compiling.address, stand.address, folder / "keys", gpu_helper=str(helper), cpu_ids="0"
    )
    try:
        await agent.start()
        await stand.until_node(NODE_ID, orchestrator_pb2.NODE_STATE_ACTIVE)
        yield House(stand, machine, own["listen"])
    finally:
        await agent.close()
        await life.close()
        await stand.down()
        await compiling.stop(0)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def test_a_board_that_was_profiled_at_two_clocks_is_planned_to_ease_and_eases(
    tiny: TinyVariant, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    async with house(tiny, database_url, redis_url, tmp_path) as house_:
        standing: list[Any] = []

        async def known() -> bool:
            standing[:] = (await house_.stand.nodes())[NODE_ID].report.layouts
            return [one.activity for one in standing] == [node_pb2.LAYOUT_ACTIVITY_NOTHING]

        await until(known, "the board's partitions to be known", lambda: standing)
        profiles = {p.point.power.sm_clock_mhz: p for p in await house_.profile()}
        assert {clock: p.ran_sm_clock_mhz for clock, p in profiles.items()} == {0: 1980, LOW_MHZ: LOW_MHZ}
        at_work = {clock: profile.loads[0] for clock, profile in profiles.items()}
        power_w = {c: load.energy_per_token.energy_mj * load.tokens_per_s / 1e3 for c, load in at_work.items()}
        assert power_w[LOW_MHZ] / power_w[0] == pytest.approx(LOW_MHZ / 1980, rel=0.15)

        answer = await house_.stand.deploy(rate=0.1)
        chosen = [c.point.power for c in answer.explanation.candidates if c.chosen]
        assert [one.eased_sm_clock_mhz for one in chosen] == [LOW_MHZ]
        seen: list[node_pb2.PowerStatus] = []

        async def eases() -> bool:
            seen[:] = [await house_.power()]
            return seen[0].admitted.eased_sm_clock_mhz == LOW_MHZ and house_.board.rail.locked_mhz == LOW_MHZ

        await until(eases, "the board to ease", lambda: (seen, house_.board.rail.locked_mhz), 30)
        assert not seen[0].refusal and not seen[0].not_in_force
