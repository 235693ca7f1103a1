"""Composition root of the compiler: settings in, parts wired and started in order."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from services.compiler.catalog import Catalog
from services.compiler.host_cpu import read_boot_id
from services.compiler.search.devices import DeviceTimers, NoDevices
from services.compiler.search.fleet import FleetDevices
from services.compiler.search.records import SearchRecords
from services.compiler.search.searching import Searcher
from services.compiler.servicer import SERVICE, CompilerServicer
from services.compiler.settings import CompilerSettings
from services.compiler.workshop import Workshop
from tradewind import logs
from tradewind.metrics import Registry, serve_metrics
from tradewind.rpc.client import open_channel
from tradewind.rpc.operations import Operations
from tradewind.rpc.server import GrpcServer
from tradewind.rpc.service import Lifecycle, run
from tradewind.settings import read_or_exit
from tradewind.store.database import Database
from tradewind.v1 import compiler_pb2_grpc, operation_pb2_grpc

# Operations under way at once; the workshop's places bound what really runs, the rest waits there with its stage shown.
WORKERS: Final = 8
# Reads and downloads finish within this at a stop; builds are cancelled, a later one starts from what is stored.
GRACE_S: Final = 2.0


def main() -> None:
    """Runs the compiler until a signal comes."""
    settings = read_or_exit(CompilerSettings)
    logs.configure("compiler", settings.log_format, settings.log_level)

    async def begin(life: Lifecycle) -> None:
        await start(life, settings)

    run("compiler", begin)


async def start(life: Lifecycle, settings: CompilerSettings) -> GrpcServer:
    """Starts every part, registers its stop, and returns the server once it is ready.

    Raises:
        DatabaseUnavailable: PostgreSQL does not answer.
        InUse: the port or the state folder is taken.
    """
    structlog.get_logger("compiler").info("settings", **settings.effective())
    workshop = Workshop(settings.state_dir, settings.job_limits, settings.places)
    life.on_stop(lambda: asyncio.to_thread(workshop.close))
    registry = Registry()
    database = Database(settings.database_url)
    life.on_stop(database.close)
    await database.migrate()
    operations = Operations("compiler", database, WORKERS)
    await operations.recover()
    life.on_stop(operations.close)
    server = GrpcServer("compiler", settings.listen, registry)
    catalog, records = Catalog(database), SearchRecords(database)
    devices = _devices(life, settings)
    searcher = Searcher((workshop.trier, workshop.prober), workshop.places, records, catalog, devices)
    servicer = CompilerServicer(workshop, catalog, operations, searcher, records)
    server.add(compiler_pb2_grpc.add_CompilerServiceServicer_to_server, servicer, SERVICE)
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


def _devices(life: Lifecycle, settings: CompilerSettings) -> DeviceTimers:
    """Those of registered nodes, where an orchestrator knows some."""
    if not settings.orchestrator_address:
        return NoDevices()
    orchestrator = open_channel(settings.orchestrator_address)
    life.on_stop(lambda: orchestrator.close(None))
    return FleetDevices(orchestrator, read_boot_id())
