"""Times modules on the devices of registered nodes, over gRPC: the orchestrator knows them, their agents measure.

The end of a call ends the process on the node, so that a cancelled search leaves nothing there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import structlog

from services.compiler.search.core.device_loads import REPEATS, Ask, Seen, asks_of, costs_of
from services.compiler.search.core.facts import Measured
from services.compiler.targets import Target
from tradewind.domain.errors import CompileFailed, ServiceUnavailable, TradewindError, WrongAnswer, reason_of
from tradewind.domain.manifest import Function
from tradewind.rpc.client import open_channel
from tradewind.rpc.errors import translated
from tradewind.v1 import compiler_pb2, node_pb2, node_pb2_grpc, orchestrator_pb2, orchestrator_pb2_grpc, profiler_pb2

# An orchestrator that takes longer is as good as away; targets are then timed here or not at all.
READ_LIMIT_S: Final = 5.0
# One module: loading and three loads take seconds, weights of a large model some minutes to fetch.
MEASURE_LIMIT_S: Final = 900.0
# Nothing heard for this long means that the agent hangs: it reports progress in between.
SILENCE_LIMIT_S: Final = 180.0
# As many nodes as one page holds are plenty to find one of each kind.
PAGE_SIZE: Final = 1000
# Reasons of an agent that speak of the module; any other is the node's own trouble.
_OF_THE_MODULE: Final = frozenset({"REPLICA_LOST", "INTERNAL", "VARIANT_REJECTED"})


class FleetDevices:
    """Devices of active nodes.

    Args:
        orchestrator: channel to it.
        boot_id: of this machine, by which a node on it is known; "" when the kernel does not tell.
        silence_limit_s: how long an agent may say nothing.
    """

    def __init__(self, orchestrator: Any, boot_id: str, silence_limit_s: float = SILENCE_LIMIT_S) -> None:
        self._stub: Any = orchestrator_pb2_grpc.OrchestratorServiceStub(orchestrator)
        self._boot_id, self._silence_limit_s = boot_id, silence_limit_s
        self._log = structlog.get_logger("fleet-devices")

    async def timer_of(self, target: Target) -> NodeTimer | None:
        """The first active node, by name, with a device for the target; see `DeviceTimers`.

        What this machine runs is timed by a child process here and not through a node on it: the same device, with
        less between. Code for "host" is for this machine only.
        """
        if target.is_host:
            return None
        for node in await self._nodes():
            report = node.report
            here = bool(self._boot_id) and report.boot_id == self._boot_id
            if here and target.runnable_here:
                continue
            for device in report.devices:
                if {target.name, target.resolved} & set(device.targets):
                    return NodeTimer(report, device, self._silence_limit_s, shares_machine=here)
        return None

    async def _nodes(self) -> list[orchestrator_pb2.Node]:
        request = orchestrator_pb2.ListNodesRequest(page_size=PAGE_SIZE)
        try:
            with translated("orchestrator"):
                nodes = (await self._stub.ListNodes(request, timeout=READ_LIMIT_S)).nodes
        except TradewindError as error:
            self._log.warning("no nodes are known, only this machine times", error=error.message)
            return []
        active = (node for node in nodes if node.state == orchestrator_pb2.NODE_STATE_ACTIVE)
        return sorted(active, key=lambda node: node.report.node_id)


class NodeTimer:
    """One device of a node."""

    def __init__(
        self, report: node_pb2.NodeReport, device: node_pb2.Device, silence_limit_s: float, *, shares_machine: bool
    ) -> None:
        self._node_id, self._address, self._device = report.node_id, report.address, device
        self._silence_limit_s, self._shares_machine = silence_limit_s, shares_machine

    @property
    def shares_machine(self) -> bool:
        """See `DeviceTimer`."""
        return self._shares_machine

    async def time(self, variant: compiler_pb2.Variant, functions: Sequence[Function]) -> Measured:
        """See `DeviceTimer`."""
        asks = asks_of(functions)
        try:
            profile = await self._measure(variant, asks)
        except TradewindError as error:
            if reason_of(error) == WrongAnswer.reason:
                raise WrongAnswer(f"on {self._where}: {error.message}", {"node": self._node_id}) from error
            if reason_of(error) in _OF_THE_MODULE:
                raise CompileFailed(f"on {self._where}: {error.message}", {"node": self._node_id}) from error
            raise ServiceUnavailable(f"{self._where} measures nothing now: {error.message}") from error
        seen = {_ask_of(load): _seen_of(load) for load in profile.loads}
        if any(ask not in seen for ask in asks):
            raise ServiceUnavailable(f"{self._where} left out a load that was asked for")
        where = f"{self._where}, {profile.point.partition_kind}"
        return Measured(costs_of(functions, seen), memory_bytes=profile.memory_bytes, where=where)

    @property
    def _where(self) -> str:
        return f"node {self._node_id} ({self._device.device_class})"

    async def _measure(self, variant: compiler_pb2.Variant, asks: Sequence[Ask]) -> profiler_pb2.Profile:
        channel = open_channel(self._address)
        stub: Any = node_pb2_grpc.NodeAgentServiceStub(channel)
        request = node_pb2.MeasureRequest(
            variant_id=variant.variant_id,
            manifest=variant.manifest,
            device_id=self._device.device_id,
            loads=[_load_of(ask) for ask in asks],
        )
        try:
            with translated(f"node agent of {self._node_id} at {self._address}"):
                return await self._last(aiter(stub.Measure(request, timeout=MEASURE_LIMIT_S)))
        finally:
            await channel.close(None)

    async def _last(self, news: AsyncIterator[node_pb2.MeasureResponse]) -> profiler_pb2.Profile:
        while True:
            try:
                async with asyncio.timeout(self._silence_limit_s):
                    message = await anext(news)
            except StopAsyncIteration:
                raise ServiceUnavailable("the agent ended the measurement without a result") from None
            except TimeoutError:
                raise ServiceUnavailable(f"the agent said nothing for {self._silence_limit_s:.0f} s") from None
            if message.HasField("profile"):
                return message.profile


def _load_of(ask: Ask) -> node_pb2.MeasureLoad:
    return node_pb2.MeasureLoad(
        prompt_tokens=ask.prompt_tokens,
        output_tokens=ask.output_tokens,
        concurrency=ask.concurrency,
        repeats=REPEATS,
    )


def _ask_of(load: profiler_pb2.LoadPoint) -> Ask:
    return Ask(load.prompt_tokens, load.output_tokens, load.concurrency)


def _seen_of(load: profiler_pb2.LoadPoint) -> Seen:
    return Seen(load.ttft.p50_ms, load.tpot.p50_ms, load.energy_per_prefill.energy_mj, load.energy_per_token.energy_mj)
