"""One look at everything: which services answer, what there is. What cannot be had is left out and said."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tradewind.client.tradewind import Tradewind
from tradewind.domain.errors import TradewindError
from tradewind.v1 import compiler_pb2, orchestrator_pb2, profiler_pb2

# An overview must be quick; a service that takes longer is as good as away.
PROBE_LIMIT_S: Final = 3.0
SERVICES: Final = ("orchestrator", "compiler", "profiler", "gateway")
SERVING: Final = "SERVING"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service: SERVING, NOT SERVING or AWAY."""

    name: str
    address: str
    state: str


@dataclass
class Overview:
    """Everything at one moment; None where it could not be had."""

    services: list[ServiceState]
    models: list[compiler_pb2.Model] | None = None
    variants: list[compiler_pb2.Variant] | None = None
    profiles: list[profiler_pb2.Profile] | None = None
    deployments: list[orchestrator_pb2.Deployment] | None = None
    nodes: list[orchestrator_pb2.Node] | None = None
    troubles: list[str] = field(default_factory=list)

    @property
    def all_serving(self) -> bool:
        """Whether every service answers and is ready."""
        return all(s.state == SERVING for s in self.services)


def look(client: Tradewind) -> Overview:
    """Asks every service at once."""
    with ThreadPoolExecutor(len(SERVICES)) as pool:
        overview = Overview(list(pool.map(lambda name: probe(client, name), SERVICES)))
    up = {s.name for s in overview.services if s.state != "AWAY"}
    if "compiler" in up:
        overview.models = _had(overview, client.compiler.models)
        overview.variants = _had(overview, client.compiler.variants)
    if "profiler" in up:
        overview.profiles = _had(overview, client.profiler.profiles)
    if "orchestrator" in up:
        overview.deployments = _had(overview, client.orchestrator.deployments)
        overview.nodes = _had(overview, client.orchestrator.nodes)
    return overview


def probe(client: Tradewind, name: str) -> ServiceState:
    """Whether a service answers and is ready."""
    address: str = getattr(client.endpoints, name)
    if name == "gateway":
        reached = client.gateway.reachable(PROBE_LIMIT_S)
        state = SERVING if client.gateway.healthy(PROBE_LIMIT_S) else "NOT SERVING" if reached else "AWAY"
        return ServiceState(name, address, state)
    stub: Any = health_pb2_grpc.HealthStub(client.wire(name).channel)
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_LIMIT_S)
    except grpc.RpcError:
        return ServiceState(name, address, "AWAY")
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return ServiceState(name, address, SERVING if serving else "NOT SERVING")


def _had(overview: Overview, read: Callable[[], T]) -> T | None:
    try:
        return read()
    except TradewindError as error:
        overview.troubles.append(error.message)
        return None
