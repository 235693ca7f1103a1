"""Ports of an embedded instance: the documented defaults, moved as a block, or free ones."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tradewind.domain.errors import InUse
from tradewind.rpc.server import port_in_use

# Service → default port. Metrics of a gRPC service stand 100 above it.
DEFAULTS: Final[Mapping[str, int]] = {
    "orchestrator": 7401,
    "compiler": 7402,
    "profiler": 7403,
    "gateway-grpc": 7404,
    "node_agent": 7410,
    "gateway": 8080,
}
METRICS_OFFSET: Final = 100
WITH_METRICS: Final = ("orchestrator", "compiler", "profiler", "node_agent")
HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """A port for each service and for each service's metrics (service + "-metrics")."""

    by_name: Mapping[str, int]

    def address(self, name: str) -> str:
        """ "host:port" of a service."""
        return f"{HOST}:{self.by_name[name]}"

    def check_free(self) -> None:
        """Refuses when a port is taken.

        Raises:
            InUse: lists every taken port with its holder.
        """
        taken = [port_in_use(name, f"{HOST}:{port}") for name, port in self.by_name.items() if not _is_free(HOST, port)]
        if taken:
            advice = "choose others with --base-port and --http-port, or --free-ports"
            raise InUse("; ".join(error.message for error in taken) + f"; {advice}", taken[0].metadata)


def choose(base_port: int | None = None, http_port: int | None = None, *, free: bool = False) -> Ports:
    """Ports for all services.

    Args:
        base_port: first of the block of gRPC ports; None takes the defaults.
        http_port: of the gateway's HTTP; None takes the default.
        free: takes ports that are free now, for instances side by side.
    """
    names = [*DEFAULTS, *(f"{name}-metrics" for name in WITH_METRICS)]
    if free:
        return Ports(_free_ports(names))
    shift = 0 if base_port is None else base_port - DEFAULTS["orchestrator"]
    ports = {name: port + shift for name, port in DEFAULTS.items() if name != "gateway"}
    ports["gateway"] = http_port if http_port is not None else DEFAULTS["gateway"]
    ports |= {f"{name}-metrics": ports[name] + METRICS_OFFSET for name in WITH_METRICS}
    return Ports(ports)


def _free_ports(names: list[str]) -> dict[str, int]:
    sockets = []
    try:
        for _ in names:
            listener = socket.socket()
            listener.bind((HOST, 0))
            sockets.append(listener)
        return {name: s.getsockname()[1] for name, s in zip(names, sockets, strict=True)}
    finally:
        for listener in sockets:
            listener.close()


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # Without this a port that was closed a moment ago, and that a server may well bind, looks taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
