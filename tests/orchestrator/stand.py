"""A whole orchestrator in this process on real PostgreSQL and Redis, reached over real gRPC."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from services.orchestrator.app import start
from services.orchestrator.settings import OrchestratorSettings
from tests.orchestrator.neighbours import Shelf, serve
from tradewind.rpc.client import open_channel
from tradewind.rpc.errors import translated
from tradewind.rpc.server import GrpcServer
from tradewind.rpc.service import Lifecycle
from tradewind.v1 import common_pb2, orchestrator_pb2, orchestrator_pb2_grpc

LIMIT_S = 15.0
CALL_S = 30.0


@dataclass
class Stand:
    """The orchestrator under test and what surrounds it."""

    shelf: Shelf
    neighbours: str
    database_url: str
    redis_url: str
    settings: dict[str, Any] = field(default_factory=dict)
    server: GrpcServer | None = None
    address: str = ""
    _life: Lifecycle | None = None
    _channel: Any = None

    async def up(self) -> None:
        """Starts it, on the port it had before if it had one."""
        self._life = Lifecycle()
        server = await start(
            self._life,
            OrchestratorSettings(
                listen=self.address or "127.0.0.1:0",
                database_url=self.database_url,
                redis_url=self.redis_url,
                **{"compiler_address": self.neighbours, "profiler_address": self.neighbours}
                | {"catalog_poll_s": 0.2, "suspect_after_s": 1.0, "lost_after_s": 2.5}
                | self.settings,
            ),
        )
        self.address = server.address
        self._channel = open_channel(self.address)
        await asyncio.wait_for(self._channel.channel_ready(), LIMIT_S)

    async def down(self) -> None:
        """Stops it in order."""
        if self._life:
            await self._channel.close(None)
            await self._life.close()
            self._life = None

    async def call(self, method: str, request: Any) -> Any:
        """One call; errors come as TradewindError."""
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(self._channel)
        with translated("orchestrator"):
            return await getattr(stub, method)(request, timeout=CALL_S)

    def watch(self, *names: str) -> Any:
        """A running WatchDeployments."""
        stub: Any = orchestrator_pb2_grpc.OrchestratorServiceStub(self._channel)
        return stub.WatchDeployments(orchestrator_pb2.WatchDeploymentsRequest(deployments=names), timeout=CALL_S)

    async def deploy(self, name: str = "chat", **spec: Any) -> Any:
        """Creates a deployment of the tiny model."""
        allow = spec.pop("allow_infeasible", False)
        request = orchestrator_pb2.CreateDeploymentRequest(
            request_id=new_id(), name=name, spec=make_spec(**spec), allow_infeasible=allow
        )
        return await self.call("CreateDeployment", request)

    async def deployment(self, name: str = "chat") -> Any:
        """A deployment as it stands."""
        answer = await self.call("GetDeployment", orchestrator_pb2.GetDeploymentRequest(deployment=name))
        return answer.deployment

    async def nodes(self) -> dict[str, Any]:
        """Nodes by id."""
        answer = await self.call("ListNodes", orchestrator_pb2.ListNodesRequest())
        return {node.report.node_id: node for node in answer.nodes}

    async def until_node(self, node_id: str, state: int) -> None:
        """Waits until a node is in a state."""

        async def there() -> bool:
            nodes = await self.nodes()
            return node_id in nodes and nodes[node_id].state == state

        await until(there, f"node {node_id} in state {state}")

    async def until_state(self, state: int, name: str = "chat") -> Any:
        """Waits until a deployment is in a state; the deployment."""
        found: list[Any] = []

        async def there() -> bool:
            found[:] = [await self.deployment(name)]
            return bool(found[0].state == state)

        await until(there, f"deployment {name} in state {state}", lambda: found)
        return found[0]


@asynccontextmanager
async def standing(database_url: str, redis_url: str, **settings: Any) -> AsyncIterator[Stand]:
    """A running orchestrator with two variants on the shelf: "fast" and "lean"."""
    shelf = Shelf()  # type: ignore[abstract]
    shelf.put("fast", ttft_ms=100, tpot_ms=20, energy_mj=400)
    shelf.put("lean", ttft_ms=200, tpot_ms=40, energy_mj=250, top1=0.95)
    server, address = await serve(shelf)
    stand = Stand(shelf, address, database_url, redis_url, settings, server)
    await stand.up()
    try:
        yield stand
    finally:
        await stand.down()
        await server.stop(0)


def make_spec(
    *, ttft: float | None = None, tpot: float | None = None, rate: float = 0.0, model: str = "tiny", **others: Any
) -> orchestrator_pb2.DeploymentSpec:
    """A wish with p95 limits, 128 prompt and 32 output tokens."""
    slo = common_pb2.Slo()
    for metric, limit in ((common_pb2.LATENCY_METRIC_TTFT, ttft), (common_pb2.LATENCY_METRIC_TPOT, tpot)):
        if limit is not None:
            slo.latency.add(metric=metric, percentile=95.0, limit_ms=limit)
    demand = common_pb2.Demand(requests_per_s=rate, prompt_tokens=128, output_tokens=32)
    return orchestrator_pb2.DeploymentSpec(
        **{"model": model, "slo": slo, "demand": demand, "objective": common_pb2.OBJECTIVE_ENERGY, **others}
    )


def new_id() -> str:
    """A new request id."""
    return uuid.uuid4().hex


async def until(
    condition: Callable[[], Any], what: str, shown: Callable[[], object] = lambda: "", limit_s: float = LIMIT_S
) -> None:
    """Waits on a condition (plain or async) with a limit."""
    deadline = time.monotonic() + limit_s
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}; {shown()}"
        await asyncio.sleep(0.02)
