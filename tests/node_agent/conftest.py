"""A compiled tiny variant, the neighbours, and agents that are gone after each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.node_agent.agent_process import Agent
from tests.node_agent.neighbours import FileCompiler, Orchestrator, serve_compiler, serve_orchestrator
from tests.tiny_variant import TinyVariant, build_tiny_variant
from tradewind.rpc.server import GrpcServer


@pytest.fixture(scope="session")
def tiny() -> TinyVariant:
    return build_tiny_variant()


@pytest.fixture
async def compiler(tiny: TinyVariant) -> AsyncIterator[tuple[FileCompiler, GrpcServer]]:
    servicer = FileCompiler()
    servicer.offer(tiny)
    server = await serve_compiler(servicer)
    yield servicer, server
    await server.stop(0)


@pytest.fixture
async def orchestrator() -> AsyncIterator[tuple[Orchestrator, GrpcServer]]:
    servicer = Orchestrator()
    server = await serve_orchestrator(servicer)
    yield servicer, server
    await server.stop(0)


StartAgent = Callable[..., Awaitable[Agent]]


@pytest.fixture
async def start_agent(
    tmp_path: Path,
    tiny: TinyVariant,
    compiler: tuple[FileCompiler, GrpcServer],
    orchestrator: tuple[Orchestrator, GrpcServer],
) -> AsyncIterator[StartAgent]:
    agents: list[Agent] = []

    async def start(**settings: str) -> Agent:
        keys = Path(settings.pop("keys", str(tiny.public_key_file.parent)))
        agent = Agent(tmp_path / "state", compiler[1].address, orchestrator[1].address, keys, **settings)
        agents.append(agent)
        return await agent.start()

    yield start
    for agent in agents:
        await agent.close()
