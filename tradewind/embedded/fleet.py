"""Which processes an embedded instance has, with what settings, in which order. Pure but for health checks."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence

import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tradewind.embedded.layout import Layout
from tradewind.embedded.ports import HOST, WITH_METRICS, Ports
from tradewind.embedded.process import Spec
from tradewind.embedded.stores import redis_command
from tradewind.rpc.client import open_channel
from tradewind.store.live import LiveState

# One health check may take this long; the next follows at once.
CHECK_LIMIT_S = 1.0


def redis_spec(layout: Layout, url: str) -> Spec:
    """Redis, in the foreground."""

    async def healthy() -> bool:
        live = LiveState(url)
        try:
            await live.ping()
        except Exception:  # noqa: BLE001  any failure means not yet
            return False
        finally:
            await live.close()
        return True

    return Spec("redis", redis_command(layout), healthy)


def service_specs(layout: Layout, ports: Ports, database_url: str, redis_url: str) -> list[list[Spec]]:
    """Services in waves: what is in one wave starts together, after the wave before is healthy."""
    shared = {"TRADEWIND_DATABASE_URL": database_url, "TRADEWIND_REDIS_URL": redis_url}
    address = ports.address

    def spec(name: str, healthy: Callable[[], Awaitable[bool]], **settings: str) -> Spec:
        prefix = f"TRADEWIND_{name.upper()}_"
        own = {"state_dir": str(layout.service(name)), **settings}
        if name in WITH_METRICS:
            own |= {"listen": address(name), "metrics_listen": f"{HOST}:{ports.by_name[f'{name}-metrics']}"}
        environment = shared | {prefix + key.upper(): value for key, value in own.items()}
        return Spec(name, [sys.executable, "-m", f"services.{name}"], healthy, environment)

    compiler = spec("compiler", grpc_healthy(address("compiler")), orchestrator_address=address("orchestrator"))
    orchestrator = spec(
        "orchestrator",
        grpc_healthy(address("orchestrator")),
        compiler_address=address("compiler"),
        profiler_address=address("profiler"),
    )
    profiler = spec(
        "profiler",
        grpc_healthy(address("profiler")),
        compiler_address=address("compiler"),
        orchestrator_address=address("orchestrator"),
    )
    node_agent = spec(
        "node_agent",
        grpc_healthy(address("node_agent")),
        compiler_address=address("compiler"),
        orchestrator_address=address("orchestrator"),
        trusted_keys=str(layout.keys),
    )
    gateway = spec(
        "gateway",
        http_healthy(f"http://{address('gateway')}/healthz"),
        listen=address("gateway-grpc"),
        http_listen=address("gateway"),
        compiler_address=address("compiler"),
        orchestrator_address=address("orchestrator"),
    )
    return [[compiler, orchestrator, profiler, gateway], [node_agent]]


def endpoints(ports: Ports) -> dict[str, str]:
    """What the command line reads to find the services."""
    return {
        "compiler": ports.address("compiler"),
        "profiler": ports.address("profiler"),
        "orchestrator": ports.address("orchestrator"),
        "node_agent": ports.address("node_agent"),
        "gateway_grpc": ports.address("gateway-grpc"),
        "gateway": f"http://{ports.address('gateway')}",
    }


def grpc_healthy(address: str) -> Callable[[], Awaitable[bool]]:
    """Asks a server's standard health service."""

    async def check() -> bool:
        async with open_channel(address) as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=CHECK_LIMIT_S
                )
            except Exception:  # noqa: BLE001  any failure means not yet
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return check


def http_healthy(url: str) -> Callable[[], Awaitable[bool]]:
    """Asks a server's health page."""

    async def check() -> bool:
        async with httpx.AsyncClient(trust_env=False, timeout=CHECK_LIMIT_S) as client:
            try:
                return (await client.get(url)).status_code == httpx.codes.OK
            except httpx.HTTPError:
                return False

    return check


def names(waves: Sequence[Sequence[Spec]]) -> list[str]:
    """Names of all services, in the order of their start."""
    return [spec.name for wave in waves for spec in wave]
