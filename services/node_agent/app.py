"""Composition root of the node agent: parts start in order, and stop in the reverse order.

state folder → devices → fleet → server (not ready) → kept target → link → ready
(signal) → not ready → drain → link → server → fleet → state folder
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from services.node_agent.artifacts.fetcher import Fetcher
from services.node_agent.artifacts.store import ArtifactStore
from services.node_agent.core.energy import Rate
from services.node_agent.core.target import ReplicaSpec, Target
from services.node_agent.devices.discovery import discover_cpu, offered_cpus
from services.node_agent.devices.inventory import Inventory
from services.node_agent.devices.port import DeviceKind
from services.node_agent.devices.vulkan import VulkanDevice, discover_vulkan
from services.node_agent.gpu.discovery import Boards, discover_in_time
from services.node_agent.gpu.executor.look import Held
from services.node_agent.gpu.governor import AtWork
from services.node_agent.gpu.helper.client import HelperClient
from services.node_agent.gpu.managed_boards import ManagedBoards, Reach
from services.node_agent.gpu.managed_boards import Surroundings as BoardSurroundings
from services.node_agent.gpu.reading.process import ReaderProcess
from services.node_agent.gpu.simulated import SimulatedGpus
from services.node_agent.gpu.telemetry import Telemetry
from services.node_agent.link import Link
from services.node_agent.metrics import AgentMetrics
from services.node_agent.obedience import Obedience
from services.node_agent.orchestrators import Orchestrators
from services.node_agent.replica.spec import ProcessSpec
from services.node_agent.report import Identity, Reporter, read_boot_id
from services.node_agent.serving import inference
from services.node_agent.serving.dispatches import DispatchTimer
from services.node_agent.serving.measure import Measurer
from services.node_agent.serving.node_service import NodeAgentServicer
from services.node_agent.serving.setting import at_setting
from services.node_agent.serving.workbench import Workbench
from services.node_agent.settings import NodeAgentSettings
from services.node_agent.state_folder import StateFolder
from services.node_agent.supervision.fleet import Fleet
from services.node_agent.supervision.replica import Surroundings
from services.node_agent.supervision.step_rates import StepRates
from tradewind import logs
from tradewind.domain.errors import InvalidField
from tradewind.domain.figures import FigureSource
from tradewind.metrics import Registry, serve_metrics
from tradewind.rpc.client import open_channel
from tradewind.rpc.server import GrpcServer
from tradewind.rpc.service import Lifecycle, run
from tradewind.settings import read_or_exit
from tradewind.v1 import compiler_pb2_grpc, node_pb2_grpc

# After the drain nothing of worth is in hand.
SERVER_GRACE_S: Final = 1.0
# The loop hands on every token while threads watch and change boards; at Python's 5 ms the slowest hundredth of short
# requests took a tenth to a fifth longer beside a change, see docs/devices.md.
SWITCH_S: Final = 0.0005


def main() -> None:
    """Runs the node agent until a signal comes."""
    sys.setswitchinterval(SWITCH_S)
    settings = read_or_exit(NodeAgentSettings)
    logs.configure("node_agent", settings.log_format, settings.log_level)
    run("node-agent", lambda life: start(settings, life))


async def start(settings: NodeAgentSettings, life: Lifecycle) -> None:
    """Starts everything; registers what stops it.

    Raises:
        TradewindError: a setting cannot be met, or the port or state folder is taken.
    """
    structlog.get_logger("node-agent").info("settings", **settings.effective())
    labels = _labels(settings)
    folder = StateFolder.open(settings.state_dir)
    life.on_stop(lambda: asyncio.to_thread(folder.close))
    node_id = folder.node_id(settings.node_id)
    structlog.contextvars.bind_contextvars(node=node_id)
    cpu = discover_cpu(offered_cpus(settings.cpu_ids, os.sched_getaffinity(0)), settings.tdp_w)
    found = await _found(settings)
    inventory = Inventory([cpu, *found.devices, *await _through_vulkan(settings, found)])
    store = ArtifactStore(folder.artifacts, settings.cache_limit_bytes)
    compiler = open_channel(settings.compiler_address)
    life.on_stop(lambda: compiler.close(None))
    news = asyncio.Event()
    parts = _Parts(settings, folder, inventory, store)
    fetcher = Fetcher(
        store, compiler_pb2_grpc.CompilerServiceStub(compiler), settings.keys, in_use=lambda: fleet.digests
    )
    fleet = Fleet(lambda changed, emptied: parts.surroundings(fetcher, changed, emptied), news.set, time.monotonic)
    life.on_stop(fleet.stop)

    turn = asyncio.Lock()
    managed = _managed(settings, folder, found, (lambda: fleet.held, turn.locked, news.set, fleet.at_work))
    registry = Registry()
    registry.collector.register(AgentMetrics(fleet, list(inventory), managed.easings if managed else dict))
    life.on_stop(_async(serve_metrics(registry, settings.metrics_listen)))
    server = GrpcServer("node-agent", settings.listen, registry)

    def follow(target: Target) -> None:
        fleet.want(target.replicas)
        if managed is not None:
            managed.want(target)

    obedience = Obedience(node_id, folder, follow)
    identity = Identity(node_id, read_boot_id(), time.time_ns(), "", labels, settings.report_period_s)
    reporter = Reporter(identity, list(inventory), fleet, store, lambda: obedience.newest, managed, found.faults)

    def taken() -> set[int | str]:
        standing = [one for device in found.devices for one in device.partitions()]
        return fleet.busy | (managed.strangers(standing) if managed is not None else set())

    bench = parts.workbench(fetcher, node_id, taken, managed)
    server.add(inference.register, inference.InferenceProxy(fleet), inference.SERVICE)
    servicer = NodeAgentServicer(reporter, Measurer(bench, turn), DispatchTimer(bench, turn))
    server.add(node_pb2_grpc.add_NodeAgentServiceServicer_to_server, servicer, "tradewind.v1.NodeAgentService")
    await server.start()
    reporter.reached_at(settings.advertise_address or server.address)
    life.on_stop(lambda: server.stop(SERVER_GRACE_S))

    fleet.start()
    obedience.recover()
    if managed is not None:
        managed.start()
        life.on_stop(managed.stop)
    orchestrators = Orchestrators(settings.orchestrator_address)
    link = Link(orchestrators, reporter, obedience.obey, news, settings.report_period_s, random.random)
    link.start()
    life.on_stop(link.stop)
    if found.reader is not None:
        telemetry = Telemetry(found.reader, found.watches)
        telemetry.start()
        life.on_stop(_async(telemetry.stop))
    if isinstance(found.reader, ReaderProcess):
        life.on_stop(_async(found.reader.close))
    metering = asyncio.create_task(_meter(inventory, fleet, settings.report_period_s))
    life.on_stop(lambda: _end(metering))
    # The link still tells that replicas drain, and ends after them.
    life.on_stop(lambda: fleet.drain(settings.drain_limit_s))
    life.on_not_ready(server.not_ready)
    await server.ready()


class _Parts:
    """What replicas and measurements share."""

    def __init__(
        self, settings: NodeAgentSettings, folder: StateFolder, inventory: Inventory, store: ArtifactStore
    ) -> None:
        self._settings, self._folder, self._inventory, self._store = settings, folder, inventory, store

    def surroundings(self, fetcher: Fetcher, changed: Callable[[], None], emptied: Callable[[], None]) -> Surroundings:
        return Surroundings(
            fetcher=fetcher,
            store=self._store,
            check=self._check,
            targets=lambda device_id: self._inventory.find(device_id).facts.targets,
            process_spec=self._process_spec,
            load_limit_s=self._settings.load_limit_s,
            now_s=time.monotonic,
            draw=random.random,
            changed=changed,
            emptied=emptied,
        )

    def workbench(
        self, fetcher: Fetcher, node_id: str, busy: Callable[[], set[int | str]], managed: ManagedBoards | None
    ) -> Workbench:
        return Workbench(
            fetcher=fetcher,
            inventory=self._inventory,
            node_id=node_id,
            busy=busy,
            process_spec=self._process_spec,
            envelope_path=self._store.path_of,
            load_limit_s=self._settings.load_limit_s,
            at_setting=partial(at_setting, managed),
        )

    def _check(self, spec: ReplicaSpec) -> None:
        self._inventory.find(spec.device_id).check(
            spec.device_id, spec.partition_kind, spec.cpu_ids, spec.partition_uuid
        )

    def _process_spec(self, spec: ReplicaSpec, envelope: Path, number: int) -> ProcessSpec:
        name = hashlib.sha256(spec.replica_id.encode()).hexdigest()[:12]
        facts = self._inventory.find(spec.device_id).facts
        # On a simulated board there is nothing to see: the process runs on the CPU, and the slice is booked for it.
        gpu_uuid = "" if facts.kind is DeviceKind.SIMULATED else spec.partition_uuid
        return ProcessSpec(
            replica_id=spec.replica_id,
            variant_id=spec.variant_id,
            envelope=envelope,
            artifacts=self._store.root,
            trusted_keys=self._settings.keys.absolute(),
            socket=self._folder.sockets / f"{name}-{number}",
            cpu_ids=spec.cpu_ids,
            gpu_uuid=gpu_uuid,
            idle_boost=self._settings.idle_boost == "on",
            batch_limit=spec.batch_limit,
            parent=os.getpid(),
            rate=self._inventory.find(spec.device_id).rate(),
            log_format=self._settings.log_format,
            log_level=self._settings.log_level,
        )


def _managed(
    settings: NodeAgentSettings,
    folder: StateFolder,
    found: Boards,
    agent: tuple[Held, Callable[[], bool], Callable[[], None], AtWork],
) -> ManagedBoards | None:
    """Boards that are cut and set: through the privileged helper, or simulated ones of this process; else None."""
    boot_id = read_boot_id()
    if settings.gpu_helper:
        reach = Reach.through(HelperClient(Path(settings.gpu_helper)))
    elif isinstance(found.reader, SimulatedGpus):
        reach = Reach.directly(found.reader, found.reader)
        # Such a machine starts and ends with this process.
        boot_id = f"{boot_id}-{time.time_ns()}"
    else:
        return None
    budget_mw = round(settings.gpu_power_budget_w * 1e3) or None
    around = BoardSurroundings(folder.root / "boards", boot_id, *agent, settings.adopt_unknown_slices, budget_mw)
    return ManagedBoards(reach, around)


def _labels(settings: NodeAgentSettings) -> dict[str, str]:
    try:
        return settings.label_pairs()
    except ValueError as error:
        raise InvalidField("labels", str(error)) from error


async def _found(settings: NodeAgentSettings) -> Boards:
    """NVIDIA boards, where they are wanted."""
    if settings.gpus == "off" and not settings.simulated_machine:
        return Boards()
    return await discover_in_time(settings.simulated_machine, settings.gpu_helper)


async def _through_vulkan(settings: NodeAgentSettings, found: Boards) -> tuple[VulkanDevice, ...]:
    """Devices that only Vulkan reaches, where they are wanted."""
    if settings.vulkan == "off":
        return ()
    return await asyncio.to_thread(discover_vulkan, [board.facts.device_id for board in found.devices])


async def _meter(inventory: Inventory, fleet: Fleet, period_s: float) -> None:
    """Reads meters often enough for counters that wrap, and tells replicas what CPU time costs when that changes."""
    told: dict[str, Rate] = {}
    step_rates = StepRates(inventory)
    while True:
        await asyncio.sleep(period_s)
        for device in inventory:
            reading = device.read()
            if reading.board is not None and reading.board.fault_lasts:
                fleet.abandon(device.facts.device_id)
            device_id, rate = device.facts.device_id, device.rate()
            if rate.source is not FigureSource.UNAVAILABLE and told.get(device_id) != rate:
                fleet.tell_rate(device_id, rate)
                told[device_id] = rate
        step_rates.tell(fleet.replicas)


def _async(stop: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    return lambda: asyncio.to_thread(stop)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
