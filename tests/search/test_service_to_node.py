"""A search through the whole service to a node: a compiler with its database, and an agent that fetches from it and
measures; who lists nodes is a stub."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.compiler.app import start
from services.compiler.settings import CompilerSettings
from tests.compiler.conftest import Service
from tests.node_agent.agent_process import NODE_ID, Agent
from tests.search.roster import serving
from tradewind.rpc.client import open_channel
from tradewind.rpc.service import Lifecycle
from tradewind.v1 import compiler_pb2, compiler_pb2_grpc, operation_pb2, operation_pb2_grpc

pytestmark = pytest.mark.timeout(300)
# Of a model this shallow the first candidate is built whole whatever it takes, and no other fits.
BUDGET_S = 1


@asynccontextmanager
async def compiler_of(settings: CompilerSettings) -> AsyncIterator[tuple[Service, str]]:
    life = Lifecycle()
    server = await start(life, settings)
    try:
        async with open_channel(server.address) as channel:
            stubs = compiler_pb2_grpc.CompilerServiceStub(channel), operation_pb2_grpc.OperationServiceStub(channel)
            yield Service(*stubs, settings.state_dir), server.address
    finally:
        await life.close()


async def test_a_search_times_its_winner_on_a_node(
    database_url: str,
    asked_state: Path,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    state = Path(shutil.copytree(asked_state, tmp_path / "state"))
    async with serving() as roster:
        settings = CompilerSettings(
            listen="127.0.0.1:0",
            state_dir=state,
            database_url=database_url,
            parallel_jobs=1,
            orchestrator_address=roster.address,
        )
        async with compiler_of(settings) as (service, address):
            agent = Agent(tmp_path / "agent", address, roster.address, state / "keys")
            try:
                report = await (await agent.start()).describe()
                report.boot_id = "another machine"
                roster.add(report)
                await service.end_of(await service.begin_import(tiny_folder))
                wanted = {"targets": ["cpu:x86-64-v3"], "search": True, "context_tokens": 64, "budget_s": BUDGET_S}
                ended = await service.end_of(await service.begin_build(**wanted))
            finally:
                await agent.close()
            assert ended.state == operation_pb2.OPERATION_STATE_DONE, ended.error
            found = await service.compiler.GetSearch(compiler_pb2.GetSearchRequest(model="tiny"), timeout=10)
    kept, *others = found.search.candidates
    assert kept.fate == compiler_pb2.CANDIDATE_FATE_KEPT, kept.reason
    assert {one.fate for one in others} == {compiler_pb2.CANDIDATE_FATE_OVER_BUDGET}
    (trial,) = kept.trials
    assert trial.measured_on.startswith(f"node {NODE_ID} (cpu:")
    assert [cost.function for cost in trial.costs] == ["prefill_t64_c64", "decode_b1_c64", "decode_b4_c64"]
    assert all(cost.time_ms > 0 for cost in trial.costs)
    assert 0 <= trial.kl_divergence_nats < 1e-4, "compared where it was built"
