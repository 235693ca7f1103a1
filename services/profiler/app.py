"""Composition root of the profiler: settings in, parts wired and started in order."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from services.profiler.campaigns import Campaigns
from services.profiler.explainer import Explainer
from services.profiler.meter import AgentMeter
from services.profiler.neighbours import CompilerCatalogue, OrchestratorFleet
from services.profiler.records import ProfileRecords
from services.profiler.servicer import SERVICE, ProfilerServicer
from services.profiler.settings import ProfilerSettings
from tradewind import logs
from tradewind.metrics import Registry, serve_metrics
from tradewind.rpc.client import open_channel
from tradewind.rpc.operations import Operations
from tradewind.rpc.server import GrpcServer
from tradewind.rpc.service import Lifecycle, run
from tradewind.settings import read_or_exit
from tradewind.store.database import Database
from tradewind.v1 import operation_pb2_grpc, profiler_pb2_grpc

# One campaign at a time: a second one on the same node would disturb what the first measures.
WORKERS: Final = 1
# Reads finish within this at a stop; measurements are cancelled, for their results are worth nothing in part.
GRACE_S: Final = 2.0


def main() -> None:
    """Runs the profiler until a signal comes."""
    settings = read_or_exit(ProfilerSettings)
    logs.configure("profiler", settings.log_format, settings.log_level)

    async def begin(life: Lifecycle) -> None:
        await start(life, settings)

    run("profiler", begin)


async def start(life: Lifecycle, settings: ProfilerSettings) -> GrpcServer:
    """Starts every part, registers its stop, and returns the server once it is ready.

    Raises:
        DatabaseUnavailable: PostgreSQL does not answer.
        InUse: the port is taken.
    """
    structlog.get_logger("profiler").info("settings", **settings.effective())
    registry = Registry()
    database = Database(settings.database_url)
    life.on_stop(database.close)
    await database.migrate()
    compiler, orchestrator = open_channel(settings.compiler_address), open_channel(settings.orchestrator_address)
    life.on_stop(lambda: compiler.close(None))
    life.on_stop(lambda: orchestrator.close(None))
    operations = Operations("profiler", database, WORKERS)
    await operations.recover()
    life.on_stop(operations.close)
    catalogue, profiles = CompilerCatalogue(compiler), ProfileRecords(database)
    fleet = OrchestratorFleet(orchestrator)
    campaigns = Campaigns(catalogue, fleet, AgentMeter(), profiles, time.time)
    server = GrpcServer("profiler", settings.listen, registry)
    server.add(
        profiler_pb2_grpc.add_ProfilerServiceServicer_to_server,
        ProfilerServicer(operations, campaigns, catalogue, profiles, Explainer(catalogue, fleet)),
        SERVICE,
    )
    server.add(
        operation_pb2_grpc.add_OperationServiceServicer_to_server,
        operations.servicer(),
        "tradewind.v1.OperationService",
    )
    stop_metrics = serve_metrics(registry, settings.metrics_listen)
    life.on_stop(lambda: asyncio.to_thread(stop_metrics))
    await server.start()
    life.on_stop(lambda: server.stop(GRACE_S))
    life.on_not_ready(server.not_ready)
    await server.ready()
    return server
