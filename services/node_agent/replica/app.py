"""Composition root of a replica process: load, warm, check, serve, stop."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Final

import structlog

from services.node_agent.core.batching import Batching
from services.node_agent.core.governor import Limits
from services.node_agent.core.schedule import Policy
from services.node_agent.core.shapes import shapes_of
from services.node_agent.replica.device_loop import Clocks
from services.node_agent.replica.engine import Engine
from services.node_agent.replica.infer_engine import InferEngine
from services.node_agent.replica.infer_model import IreeInferModel, check_infer_canary
from services.node_agent.replica.infer_servicer import TensorInference
from services.node_agent.replica.latencies import Latencies
from services.node_agent.replica.model import IreeModel
from services.node_agent.replica.process import die_with, private_stdout, stay_on
from services.node_agent.replica.servicer import ReplicaInference
from services.node_agent.replica.spec import ProcessSpec, rate_from
from services.node_agent.replica.status import StatusLine
from services.node_agent.replica.verified_files import read_manifest, trusted_keys
from services.node_agent.replica.warmup import check_canary, warm
from tradewind import logs
from tradewind.domain.errors import Internal, TradewindError
from tradewind.domain.infer_manifest import InferManifest
from tradewind.domain.manifest import VariantManifest
from tradewind.rpc.server import GrpcServer
from tradewind.rpc.service import Lifecycle, run
from tradewind.v1 import inference_pb2_grpc

# The agent's picture of load is at most this old.
STATS_PERIOD_S: Final = 0.5
# Requests in hand at a stop get this long; an agent that wants them finished drains first.
STOP_GRACE_S: Final = 0.5
EXIT_FAILED: Final = 1

_SERVICE: Final = "tradewind.v1.InferenceService"


def main(arguments: list[str]) -> None:
    """Runs a replica; `arguments` is one ProcessSpec as JSON."""
    spec = ProcessSpec.from_json(arguments[0])
    die_with(spec.parent)
    status = StatusLine(private_stdout())
    logs.configure("replica", spec.log_format, spec.log_level)
    structlog.contextvars.bind_contextvars(replica=spec.replica_id)
    threads = stay_on(spec.cpu_ids)
    began_s = time.monotonic()
    try:
        loaded = _load(spec, threads, status)
    except TradewindError as error:
        structlog.get_logger("replica").error("cannot serve", error=error.message)
        status.failed(error)
        sys.exit(EXIT_FAILED)
    except Exception as error:  # noqa: BLE001  the loader runs foreign code; the agent must learn what it said
        structlog.get_logger("replica").error("cannot load", exc_info=error)
        status.failed(Internal(f"the variant could not be loaded: {error}"))
        sys.exit(EXIT_FAILED)
    run("replica", lambda life: _serve(spec, loaded, status, began_s, life))


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What serves a variant: its engine, and the servicer in front of it."""

    engine: Engine | InferEngine
    servicer: ReplicaInference | TensorInference
    latencies: Latencies


def _load(spec: ProcessSpec, threads: int, status: StatusLine) -> _Loaded:
    status.stage("checking and loading files")
    manifest = read_manifest(spec.envelope.read_bytes(), trusted_keys(spec.trusted_keys), spec.variant_id)
    if isinstance(manifest, InferManifest):
        return _load_tensor_model(spec, manifest, threads, status)
    return _load_generator(spec, manifest, threads, status)


def _clocks(spec: ProcessSpec) -> Clocks:
    """A step on a GPU costs while it lasts, whatever the CPU does meanwhile; one on the CPU what it computes."""
    return Clocks(time.monotonic, time.monotonic if spec.gpu_uuid else time.process_time)


def _load_tensor_model(spec: ProcessSpec, manifest: InferManifest, threads: int, status: StatusLine) -> _Loaded:
    model = IreeInferModel(manifest, spec.artifacts, threads)
    status.stage("warming up and asking the canary")
    check_infer_canary(model, manifest, spec.artifacts)
    batching = Batching(manifest.functions, bool(manifest.mask), spec.batch_limit)
    specs = (manifest.inputs, manifest.outputs)
    engine = InferEngine(model, specs, batching, _clocks(spec), lambda error: _die(status, error))
    engine.start()
    latencies = Latencies(time.monotonic)
    return _Loaded(
        engine, TensorInference(spec.replica_id, manifest, engine, batching, spec.rate, latencies), latencies
    )


def _load_generator(spec: ProcessSpec, manifest: VariantManifest, threads: int, status: StatusLine) -> _Loaded:
    model = IreeModel(manifest, spec.artifacts, threads)
    status.stage("warming up")
    warm(model, manifest)
    status.stage("asking the canary")
    shapes = shapes_of(manifest, spec.batch_limit)
    engine = Engine(model, shapes, Policy(), _clocks(spec), lambda error: _die(status, error))
    engine.start()
    check_canary(engine, manifest.canary, shapes.slots)
    latencies = Latencies(time.monotonic)
    return _Loaded(engine, ReplicaInference(spec.replica_id, manifest, engine, spec.rate, latencies), latencies)


def _die(status: StatusLine, error: BaseException) -> None:
    """A device that failed once is not trusted again: the agent starts a new process."""
    status.failed(Internal(f"the device failed: {error}"))
    os._exit(EXIT_FAILED)


async def _serve(spec: ProcessSpec, loaded: _Loaded, status: StatusLine, began_s: float, life: Lifecycle) -> None:
    engine, servicer = loaded.engine, loaded.servicer
    spec.socket.unlink(missing_ok=True)
    server = GrpcServer("replica", f"unix:{spec.socket}", reflection_on=False)
    server.add(inference_pb2_grpc.add_InferenceServiceServicer_to_server, servicer, _SERVICE)
    life.on_stop(lambda: asyncio.to_thread(engine.stop))
    await server.start()
    life.on_stop(lambda: server.stop(STOP_GRACE_S))
    life.on_not_ready(server.not_ready)
    await server.ready()
    tasks = [
        asyncio.create_task(_obey(servicer, engine, status)),
        asyncio.create_task(_tell(status, engine, loaded.latencies)),
    ]
    life.on_stop(lambda: _cancel(tasks))
    status.ready(time.monotonic() - began_s)


async def _tell(status: StatusLine, engine: Engine | InferEngine, latencies: Latencies) -> None:
    """Sends whole statistics each period."""
    while True:
        stats = (engine.load, engine.totals, latencies.generated_tokens, latencies.ttft(), latencies.tpot())
        status.stats(*stats, engine.stalled_s())
        await asyncio.sleep(STATS_PERIOD_S)


async def _obey(servicer: ReplicaInference | TensorInference, engine: Engine | InferEngine, status: StatusLine) -> None:
    """Takes energy rates and limits from the agent and tells it what is in hand; leaves at once when it is gone."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        message = json.loads(line)
        if "rate" in message:
            servicer.rate = rate_from(message["rate"])
        elif "limits" in message:
            if isinstance(engine, Engine):
                engine.follow(Limits(**message["limits"]))
        else:
            status.work(engine.work)
    os._exit(EXIT_FAILED)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
