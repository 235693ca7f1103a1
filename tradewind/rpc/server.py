"""A gRPC server as every Tradewind service has it: interceptors, health, reflection, limits, an honest port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
import psutil
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tradewind.domain.errors import InUse
from tradewind.metrics import Registry
from tradewind.rpc.interceptors import CallInterceptor
from tradewind.rpc.limits import KEEPALIVE_MS, MAX_CONCURRENT_CALLS, SHARED_OPTIONS

_SERVER_OPTIONS: Final = (
    *SHARED_OPTIONS,
    # Without this a second server binds an occupied port and both get half of the calls.
    ("grpc.so_reuseport", 0),
    # Both: else a client that pings as agreed is sent away with GOAWAY too_many_pings.
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)


class GrpcServer:
    """Serves servicers on one address.

    Not ready (health NOT_SERVING) until `ready()`; `not_ready()` before a stop lets callers go elsewhere first.

    Args:
        name: of the service, for logs.
        listen: "host:port" (port 0 takes a free one) or "unix:/path".
        registry: where metrics go.
        reflection_on: whether tools may list services.
    """

    def __init__(self, name: str, listen: str, registry: Registry | None = None, *, reflection_on: bool = True) -> None:
        self.name, self.listen, self._reflection_on = name, listen, reflection_on
        self._no_deadline: set[str] = set()
        self._services: list[str] = []
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._log = structlog.get_logger("rpc")
        self.port = 0
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor(registry or Registry(), lambda: frozenset(self._no_deadline))],
            options=list(_SERVER_OPTIONS),
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    def add(
        self,
        register: Callable[[Any, grpc.aio.Server], None],
        servicer: object,
        service_name: str,
        *,
        no_deadline: frozenset[str] = frozenset(),
    ) -> None:
        """Adds a servicer before `start`.

        Args:
            register: the generated add_…Servicer_to_server.
            servicer: the servicer.
            service_name: full name, for instance "tradewind.v1.CompilerService".
            no_deadline: methods of it that may be called without a deadline.
        """
        register(servicer, self._server)
        self._services.append(service_name)
        self._no_deadline.update(f"/{service_name}/{method}" for method in no_deadline)

    async def start(self) -> int:
        """Binds and serves, not ready yet. Returns the port (0 for a unix socket).

        Raises:
            InUse: the port is taken; says by whom when that can be seen.
        """
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        if self._reflection_on:
            names = [*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, self._server)
        try:
            self.port = self._server.add_insecure_port(self.listen)
        except RuntimeError as error:
            raise port_in_use(self.name, self.listen) from error
        if self.port == 0 and not self.listen.startswith("unix:"):
            raise port_in_use(self.name, self.listen)
        await self._server.start()
        self._log.info("listening", server=self.name, address=self.address)
        return self.port

    @property
    def address(self) -> str:
        """Where it listens, with the real port."""
        if self.listen.startswith("unix:"):
            return self.listen
        return f"{self.listen.rpartition(':')[0]}:{self.port}"

    async def ready(self) -> None:
        """Says SERVING from now on."""
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def not_ready(self) -> None:
        """Says NOT_SERVING from now on; calls are still taken."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, lets running ones finish for `grace_s` seconds, then cancels them. Idempotent."""
        await self.not_ready()
        await self._server.stop(grace_s)

    async def wait(self) -> None:
        """Returns when the server has stopped."""
        await self._server.wait_for_termination()

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        await asyncio.gather(*(self._health.set(name, status) for name in ("", *self._services)))


def port_in_use(name: str, listen: str) -> InUse:
    """The error for an address that cannot be bound, naming the process that holds it when the system tells."""
    holder = _holder(listen)
    who = f" by {holder}" if holder else ""
    return InUse(
        f"the {name} cannot listen on {listen}: it is taken{who}; stop that process or choose another port",
        {"address": listen, "holder": holder},
    )


def _holder(listen: str) -> str:
    port = listen.rpartition(":")[2]
    if not port.isdigit():
        return ""
    try:
        connections = psutil.net_connections(kind="inet")
    except psutil.AccessDenied:
        return ""
    for connection in connections:
        bound = connection.laddr[1] if connection.laddr else None
        if connection.status == psutil.CONN_LISTEN and bound == int(port) and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.NoSuchProcess:
                return f"pid {connection.pid}"
    return ""
