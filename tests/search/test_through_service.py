"""A search from a request to a node and back: real compiler service, real agent; who lists nodes is a stub."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.compiler.app import start
from services.compiler.settings import CompilerSettings
from tests.compiler.conftest import Service
from tests.node_agent.agent_process import NODE_ID, Agent
from tests.search.roster import serving
from tests.tiny_model import write_tiny_model
from tradewind.rpc.client import open_channel
from tradewind.rpc.service import Lifecycle
from tradewind.v1 import compiler_pb2, compiler_pb2_grpc, operation_pb2, operation_pb2_grpc

pytestmark = pytest.mark.timeout(600)
# Layers enough to be probed on a few of them, and time enough for that on a busy machine.
LAYERS, BUDGET_S = 6, 240
TARGET = "cpu:x86-64-v2"


async def test_candidates_are_probed_and_the_winner_is_timed_on_the_node(database_url: str, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny", num_hidden_layers=LAYERS)
    life, state = Lifecycle(), tmp_path / "state"
    async with serving() as roster:
        settings = CompilerSettings(
            listen="127.0.0.1:0", state_dir=state, database_url=database_url, orchestrator_address=roster.address
        )
        server = await start(life, settings)
        agent = Agent(tmp_path / "agent", server.address, roster.address, state / "keys")
        try:
            report = await (await agent.start()).describe()
            report.boot_id = "another machine"
            roster.add(report)
            async with open_channel(server.address) as channel:
                service = Service(
                    compiler_pb2_grpc.CompilerServiceStub(channel),
                    operation_pb2_grpc.OperationServiceStub(channel),
                    state,
                )
                await service.end_of(await service.begin_import(model))
                ended = await service.end_of(
                    await service.begin_build(targets=[TARGET], search=True, budget_s=BUDGET_S, context_tokens=64)
                )
                assert ended.state == operation_pb2.OPERATION_STATE_DONE, ended.error
                request = compiler_pb2.GetSearchRequest(model="tiny")
                search = (await service.compiler.GetSearch(request, timeout=10)).search
        finally:
            await agent.close()
            await life.close()
    probes = [trial for c in search.candidates for trial in c.trials if trial.layers == 2 and not trial.fate]
    assert len(probes) >= 2
    (kept, *_) = [c for c in search.candidates if c.fate == compiler_pb2.CANDIDATE_FATE_KEPT]
    (whole,) = [trial for trial in kept.trials if not trial.layers]
    for trial in (*probes, whole):
        assert trial.measured_on.startswith(f"node {NODE_ID} (cpu:"), trial
        assert all(cost.time_ms > 0 for cost in trial.costs) and len(trial.costs) == 3
    assert whole.kl_divergence_nats < 0.1
    assert list((state / "work").iterdir()) == []
