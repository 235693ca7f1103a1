"""One object for all services. Channels are opened when first used; nothing is sent until a method is called."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tradewind.client.compiler import CompilerClient
from tradewind.client.endpoints import Endpoints, find_endpoints
from tradewind.client.operations import OperationsClient, service_of
from tradewind.client.orchestrator import OrchestratorClient
from tradewind.client.profiler import ProfilerClient
from tradewind.client.wire import Wire

if TYPE_CHECKING:
    from tradewind.client.gateway import GatewayClient


class Tradewind:
    """A client of every service.

    Example:
        with Tradewind.connect() as tradewind:
            operation = tradewind.compiler.import_model(Path("model.gguf"), "mine")
            tradewind.compiler.operations.result(operation.operation_id)

    Args:
        endpoints: where the services answer.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self._wires: list[Wire] = []
        self._gateways: list[GatewayClient] = []

    @classmethod
    def connect(cls, state_dir: Path | None = None) -> Self:
        """A client of the services that environment and state folder name, see `find_endpoints`."""
        return cls(find_endpoints(state_dir))

    @cached_property
    def compiler(self) -> CompilerClient:
        """Models and variants."""
        return CompilerClient(self.wire("compiler"))

    @cached_property
    def profiler(self) -> ProfilerClient:
        """Profiles and fronts."""
        return ProfilerClient(self.wire("profiler"))

    @cached_property
    def orchestrator(self) -> OrchestratorClient:
        """Deployments, nodes, decisions."""
        return OrchestratorClient(self.wire("orchestrator"))

    @cached_property
    def gateway(self) -> GatewayClient:
        """Chat."""
        # Imported on first use: an HTTP client costs every other command a fifth of its start.
        from tradewind.client.gateway import GatewayClient

        gateway = GatewayClient(self.endpoints.gateway)
        self._gateways.append(gateway)
        return gateway

    def operations(self, operation_id: str) -> OperationsClient:
        """The operations of the service that an operation's id names.

        Raises:
            InvalidField: it is no id of an operation.
        """
        return self.compiler.operations if service_of(operation_id) == "compiler" else self.profiler.operations

    def wire(self, service: str) -> Wire:
        """A channel to a service by name."""
        wire = Wire(service, getattr(self.endpoints, service))
        self._wires.append(wire)
        return wire

    def close(self) -> None:
        """Closes every channel. Idempotent."""
        for wire in self._wires:
            wire.close()
        for gateway in self._gateways:
            gateway.close()
        self._wires.clear()
        self._gateways.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
