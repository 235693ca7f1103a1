"""The compiler and the orchestrator as the profiler sees them, over gRPC."""

from __future__ import annotations

from typing import Any, Final

from tradewind.rpc.errors import translated
from tradewind.v1 import (
    compiler_pb2,
    compiler_pb2_grpc,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
)

# Reads of metadata: a neighbour that takes longer is as good as away, and the caller should hear it soon.
READ_LIMIT_S: Final = 10.0
PAGE_SIZE: Final = 1000


class CompilerCatalogue:
    """Models and variants, asked of the compiler."""

    def __init__(self, channel: Any) -> None:
        self._stub: Any = compiler_pb2_grpc.CompilerServiceStub(channel)

    async def model(self, name: str) -> compiler_pb2.Model:
        """A model by name or id.

        Raises:
            RemoteError: NOT_FOUND.
            ServiceUnavailable: the compiler does not answer (so for every method here).
        """
        with translated("compiler"):
            response = await self._stub.GetModel(compiler_pb2.GetModelRequest(model=name), timeout=READ_LIMIT_S)
        model: compiler_pb2.Model = response.model
        return model

    async def variants(self, model: str) -> list[compiler_pb2.Variant]:
        """All variants of a model, admitted ones first."""
        found: list[compiler_pb2.Variant] = []
        request = compiler_pb2.ListVariantsRequest(model=model, page_size=PAGE_SIZE)
        while True:
            with translated("compiler"):
                response = await self._stub.ListVariants(request, timeout=READ_LIMIT_S)
            found.extend(response.variants)
            if not response.next_page_token:
                return found
            request.page_token = response.next_page_token

    async def variant(self, variant_id: str) -> compiler_pb2.Variant:
        """A variant by id."""
        request = compiler_pb2.GetVariantRequest(variant_id=variant_id)
        with translated("compiler"):
            response = await self._stub.GetVariant(request, timeout=READ_LIMIT_S)
        variant: compiler_pb2.Variant = response.variant
        return variant


class OrchestratorFleet:
    """Nodes, asked of the orchestrator."""

    def __init__(self, channel: Any) -> None:
        self._stub: Any = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)

    async def nodes(self) -> list[orchestrator_pb2.Node]:
        """All nodes.

        Raises:
            ServiceUnavailable: the orchestrator does not answer.
        """
        found: list[orchestrator_pb2.Node] = []
        request = orchestrator_pb2.ListNodesRequest(page_size=PAGE_SIZE)
        while True:
            with translated("orchestrator"):
                response = await self._stub.ListNodes(request, timeout=READ_LIMIT_S)
            found.extend(response.nodes)
            if not response.next_page_token:
                return found
            request.page_token = response.next_page_token
