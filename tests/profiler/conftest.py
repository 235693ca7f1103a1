"""A whole profiler on a real PostgreSQL, with fake neighbours over real gRPC."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.profiler.app import start
from services.profiler.settings import ProfilerSettings
from tests.profiler import worlds
from tradewind.rpc.client import open_channel
from tradewind.rpc.errors import translated
from tradewind.rpc.server import GrpcServer
from tradewind.rpc.service import Lifecycle
from tradewind.v1 import operation_pb2, operation_pb2_grpc, profiler_pb2, profiler_pb2_grpc

LIMIT_S = 30


@dataclass
class World:
    """The profiler's stub and the fakes around it."""

    stub: Any
    operations: Any
    compiler: worlds.Compiler
    orchestrator: worlds.Orchestrator
    agents: list[worlds.Agent] = field(default_factory=list)
    servers: list[GrpcServer] = field(default_factory=list)

    async def add_node(self, node_id: str, device_class: str = "cpu:test", speed: float = 1.0) -> worlds.Agent:
        """One more node with an agent of its own."""
        agent = worlds.Agent(speed)
        server = await worlds.serve_agent(agent)
        self.agents.append(agent)
        self.servers.append(server)
        self.orchestrator.nodes.append(worlds.node(node_id, server.address, device_class))
        return agent

    async def run(self, **wanted: Any) -> operation_pb2.Operation:
        """Runs a campaign to its end."""
        return await self.end_of(await self.begin(**wanted))

    async def begin(self, **wanted: Any) -> operation_pb2.Operation:
        """Starts a campaign."""
        request = profiler_pb2.RunProfileRequest(
            **{"request_id": uuid.uuid4().hex, "model": worlds.MODEL.name} | wanted
        )
        with translated("profiler"):
            return (await self.stub.RunProfile(request, timeout=10)).operation  # type: ignore[no-any-return]

    async def end_of(self, operation: operation_pb2.Operation) -> operation_pb2.Operation:
        """Watches an operation to its end; progress must never fall."""
        request = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
        seen = [m.operation async for m in self.operations.WatchOperation(request, timeout=LIMIT_S)]
        shares = [o.progress for o in seen]
        assert shares == sorted(shares)
        return seen[-1]

    async def profiles(self, **wanted: Any) -> list[profiler_pb2.Profile]:
        """Profiles kept, newest first."""
        with translated("profiler"):
            response = await self.stub.ListProfiles(profiler_pb2.ListProfilesRequest(**wanted), timeout=10)
        return list(response.profiles)


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """A profiler without nodes yet; two admitted variants and a rejected one."""
    compiler = worlds.Compiler(
        [
            worlds.variant("f32"),
            worlds.variant("bf16"),
            worlds.variant("broken", worlds.compiler_pb2.VARIANT_STATE_REJECTED, state_reason="top-1 agreement 12 %"),
        ]
    )
    orchestrator = worlds.Orchestrator()
    compiler_server = await worlds.serve_compiler(compiler)
    orchestrator_server = await worlds.serve_orchestrator(orchestrator)
    settings = ProfilerSettings(
        listen="127.0.0.1:0",
        state_dir=tmp_path,
        database_url=database_url,
        compiler_address=compiler_server.address,
        orchestrator_address=orchestrator_server.address,
    )
    life = Lifecycle()
    server = await start(life, settings)
    async with open_channel(server.address) as channel:
        world = World(
            profiler_pb2_grpc.ProfilerServiceStub(channel),
            operation_pb2_grpc.OperationServiceStub(channel),
            compiler,
            orchestrator,
            servers=[compiler_server, orchestrator_server],
        )
        yield world
    await life.close()
    await asyncio.gather(*(s.stop(0) for s in world.servers))
