"""Composition root of the orchestrator: settings in, parts wired and started in order."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Final

import structlog

from services.orchestrator.catalogue import Catalogue
from services.orchestrator.control import Control
from services.orchestrator.core.facts.policy import POLICIES
from services.orchestrator.core.liveness import Patience
from services.orchestrator.forwarder import Forwarder
from services.orchestrator.gauges import Gauges
from services.orchestrator.leadership import Leadership
from services.orchestrator.lease import Lease
from services.orchestrator.links import Links
from services.orchestrator.listener import TrafficListener
from services.orchestrator.node_stream import NodeStreams
from services.orchestrator.publisher import Publisher
from services.orchestrator.records import Records
from services.orchestrator.servicer import LINK_SERVICE_NAME, SERVICE_NAME, NodeLinkServicer, OrchestratorServicer
from services.orchestrator.settings import OrchestratorSettings
from tradewind import logs
from tradewind.metrics import Registry, serve_metrics
from tradewind.rpc.client import open_channel
from tradewind.rpc.server import GrpcServer
from tradewind.rpc.service import Lifecycle, end_task, run
from tradewind.settings import read_or_exit
from tradewind.store.database import Database
from tradewind.store.live import LiveState
from tradewind.v1 import node_pb2, node_pb2_grpc, orchestrator_pb2_grpc

# Reads finish within this at a stop; node streams are cut, agents keep their work and connect again.
GRACE_S: Final = 2.0


def main() -> None:
    """Runs the orchestrator until a signal comes."""
    settings = read_or_exit(OrchestratorSettings)
    logs.configure("orchestrator", settings.log_format, settings.log_level)

    async def begin(life: Lifecycle) -> None:
        await start(life, settings)

    run("orchestrator", begin)


async def start(life: Lifecycle, settings: OrchestratorSettings) -> GrpcServer:
    """Starts every part, registers its stop, and returns the server once it is ready.

    Raises:
        DatabaseUnavailable: PostgreSQL does not answer.
        InUse: the port is taken.
    """
    structlog.get_logger("orchestrator").info("settings", **settings.effective())
    registry = Registry()
    database = Database(settings.database_url)
    life.on_stop(database.close)
    await database.migrate()
    live = LiveState(settings.redis_url)
    life.on_stop(live.close)
    compiler, profiler = open_channel(settings.compiler_address), open_channel(settings.profiler_address)
    life.on_stop(lambda: compiler.close(None))
    life.on_stop(lambda: profiler.close(None))

    wake = _Wake()
    publisher = Publisher(live, wake)

    def heard(report: node_pb2.NodeReport) -> None:
        publisher.report(report)
        wake()

    links = Links(time.monotonic, time.time, heard)
    catalogue = Catalogue(compiler, profiler, wake)
    listener = TrafficListener(live, time.time, time.time() - time.monotonic(), wake)
    server = GrpcServer("orchestrator", settings.listen, registry)
    lease, gauges = Lease(database, settings.advertise_address), Gauges(registry)
    control = Control(
        Records(database, lease),
        links,
        catalogue,
        publisher,
        time.monotonic,
        Patience(settings.suspect_after_s, settings.lost_after_s),
        gauges,
        listener,
        replace(POLICIES[settings.policy], bound=settings.bound),
    )
    wake.to = control.wake
    forwarder = Forwarder(lambda: control.leader.address)
    life.on_stop(forwarder.close)
    streams = NodeStreams(links, control.leader, time.monotonic, gauges.handed_on)
    life.on_stop(streams.close)
    leadership = Leadership(lease, control, live, time.monotonic)
    server.add(
        orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server,
        OrchestratorServicer(control, forwarder.forward),
        SERVICE_NAME,
    )
    server.add(
        node_pb2_grpc.add_NodeLinkServiceServicer_to_server,
        NodeLinkServicer(streams),
        LINK_SERVICE_NAME,
        no_deadline=frozenset({"Connect"}),
    )
    stop_metrics = serve_metrics(registry, settings.metrics_listen)
    life.on_stop(lambda: asyncio.to_thread(stop_metrics))
    _keep(life, catalogue.poll(settings.catalog_poll_s))
    _keep(life, publisher.run())
    _keep(life, listener.run())
    _keep(life, control.run())
    await server.start()
    life.on_stop(lambda: server.stop(GRACE_S))
    # Only now is the port known that others are told; nobody has asked anything before we are ready.
    lease.holder = settings.advertise_address or reached_at(server.address, socket.gethostname())
    life.on_stop(leadership.resign)
    await leadership.look()
    _keep(life, leadership.run())
    life.on_not_ready(server.not_ready)
    await server.ready()
    return server


def reached_at(address: str, host: str) -> str:
    """Where others reach a server by default: an address that means "every interface" is no one's in particular.

    Two orchestrators that called themselves "0.0.0.0:7401" would each take the other for itself before a restart.
    """
    name, colon, port = address.rpartition(":")
    return f"{host}{colon}{port}" if name in ("", "0.0.0.0", "[::]") else address  # noqa: S104 (compared, not bound)


class _Wake:
    """Wakes the control loop; made before the loop it wakes."""

    def __init__(self) -> None:
        self.to: Any = lambda: None

    def __call__(self) -> None:
        self.to()


def _keep(life: Lifecycle, work: Coroutine[Any, Any, None]) -> None:
    """Runs a loop until the end; a fault in it ends the service, so that its supervisor starts it anew."""
    task = asyncio.ensure_future(work)

    def ended(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and done.exception() is not None:
            structlog.get_logger("orchestrator").error("a loop ended by a fault of ours", exc_info=done.exception())
            life.stopping.set()

    task.add_done_callback(ended)

    async def stop() -> None:
        await end_task(task)

    life.on_stop(stop)
