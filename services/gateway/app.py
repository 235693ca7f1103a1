"""The gateway's composition root: makes every part, starts them in order, registers their stops."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import structlog

from services.gateway.authorization import ApiKeys
from services.gateway.http.application import application
from services.gateway.http.probes import Probes
from services.gateway.http.server import HttpServer
from services.gateway.limits import MAX_DISK_BYTES, POLL_S, TEXT_THREADS
from services.gateway.metrics import GatewayMetrics
from services.gateway.openai.endpoints import OpenAiEndpoints
from services.gateway.routing.channels import Channels
from services.gateway.routing.dispatcher import Dispatcher
from services.gateway.routing.table import RouteTable
from services.gateway.rpc.inference import InferenceServicer
from services.gateway.rpc.open_inference import METHODS, OpenInferenceServicer
from services.gateway.settings import GatewaySettings
from services.gateway.status.endpoints import StatusEndpoints
from services.gateway.tensor_service import TensorService
from services.gateway.text.artifact_cache import ArtifactCache
from services.gateway.text.library import ModelLibrary
from services.gateway.text_service import TextService
from services.gateway.traffic import TrafficCount, tell
from tradewind import logs
from tradewind.metrics import Registry
from tradewind.open_inference import open_inference_pb2_grpc
from tradewind.rpc.client import open_channel
from tradewind.rpc.server import GrpcServer
from tradewind.rpc.service import Lifecycle, end_task, run
from tradewind.settings import read_or_exit
from tradewind.store.live import LiveState
from tradewind.v1 import compiler_pb2_grpc, inference_pb2_grpc, orchestrator_pb2_grpc

# Text sides that could not be loaded (the compiler was away) are tried again this often.
_TEND_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway's addresses, "host:port"."""

    http: str
    grpc: str


async def start(life: Lifecycle, settings: GatewaySettings) -> Gateway:
    """Starts every part; returns when requests are taken. Not ready until the routing table was read.

    Raises:
        InUse: a port is taken.
    """
    release = version("tradewind")
    registry, keys = Registry(), ApiKeys(settings.api_keys)
    threads = ThreadPoolExecutor(TEXT_THREADS, thread_name_prefix="text")
    life.on_stop(_shut(threads))
    live = LiveState(settings.redis_url)
    life.on_stop(live.close)
    compiler, orchestrator = open_channel(settings.compiler_address), open_channel(settings.orchestrator_address)
    life.on_stop(lambda: compiler.close(None))
    life.on_stop(lambda: orchestrator.close(None))
    channels = Channels()
    life.on_stop(channels.close)

    table = RouteTable(live, POLL_S)
    traffic = TrafficCount(time.time, lambda: table.routes)
    metrics = GatewayMetrics(registry, lambda name: name in table.routes, traffic)
    dispatcher = Dispatcher(table, channels, metrics, settings.wait_ready_s)
    cache = ArtifactCache(settings.state_dir / "models", MAX_DISK_BYTES)
    library = ModelLibrary(compiler_pb2_grpc.CompilerServiceStub(compiler), cache, threads)
    life.on_stop(library.close)
    service = TextService(table, library, dispatcher, metrics, threads)
    tensors = TensorService(table, library, dispatcher, metrics)
    probes = Probes(table)

    await table.refresh()
    _background(life, table.run(), "routing table")
    gateway_id = f"{socket.gethostname()}:{os.getpid()}"
    telling = tell(traffic, live, gateway_id, lambda: dispatcher.waiting, lambda: dispatcher.at_work)
    _background(life, telling, "traffic")
    _background(life, _tend(table, channels, dispatcher, library), "tend")

    grpc_server = GrpcServer("gateway", settings.listen, registry, reflection_on=settings.reflection)
    grpc_server.add(
        inference_pb2_grpc.add_InferenceServiceServicer_to_server,
        InferenceServicer(service, tensors, keys, settings.request_limit_s),
        "tradewind.v1.InferenceService",
    )
    open_inference = OpenInferenceServicer(
        service, tensors, table, lambda: probes.ready, keys, release, settings.request_limit_s
    )
    grpc_server.add(
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server,
        open_inference,
        "inference.GRPCInferenceService",
        no_deadline=METHODS,
    )
    openai = OpenAiEndpoints(service, table, settings.request_limit_s)
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(orchestrator)
    status = StatusEndpoints(stub, live, table, dispatcher, metrics, release)
    http_server = HttpServer(application(openai, probes, status, registry, keys, release), settings.http_listen)
    await _serve(life, grpc_server, http_server, probes, settings)
    return Gateway(http_server.address, grpc_server.address)


async def _serve(
    life: Lifecycle, grpc_server: GrpcServer, http_server: HttpServer, probes: Probes, settings: GatewaySettings
) -> None:
    async def stop() -> None:
        # Both doors close together, so that one drain limit holds for all.
        await asyncio.gather(http_server.stop(settings.drain_s), grpc_server.stop(settings.drain_s))

    async def not_ready() -> None:
        probes.stopping()
        await grpc_server.not_ready()
        await asyncio.sleep(settings.notice_s)

    life.on_stop(stop)
    await grpc_server.start()
    await http_server.start()
    life.on_not_ready(not_ready)
    await grpc_server.ready()


async def _tend(table: RouteTable, channels: Channels, dispatcher: Dispatcher, library: ModelLibrary) -> None:
    """At each change of the table: loads text sides before the first request asks, and closes channels without use."""
    while True:
        needed = {replica.address for route in table.routes.values() for replica in route.replicas}
        if not dispatcher.outstanding:
            await channels.prune(needed)
        await library.warm({route.model_id for route in table.routes.values()})
        await table.changed(_TEND_S)


def _background(life: Lifecycle, work: Coroutine[object, object, None], name: str) -> None:
    task = asyncio.create_task(work, name=name)

    async def stop() -> None:
        await end_task(task)

    life.on_stop(stop)


def _shut(threads: ThreadPoolExecutor) -> Callable[[], Awaitable[None]]:
    async def stop() -> None:
        threads.shutdown(wait=False, cancel_futures=True)

    return stop


def main() -> None:
    """Runs the gateway until a signal comes."""
    settings = read_or_exit(GatewaySettings)
    logs.configure("gateway", settings.log_format, settings.log_level)

    async def begin(life: Lifecycle) -> None:
        structlog.get_logger("gateway").info("settings", **settings.effective())
        await start(life, settings)

    run("gateway", begin)
