"""An orchestrator in a few lines, over the real wire: it lists nodes, and holds the link of an agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.node_agent.neighbours import Orchestrator
from tradewind.rpc.server import GrpcServer
from tradewind.v1 import node_pb2, node_pb2_grpc, orchestrator_pb2, orchestrator_pb2_grpc


class Roster(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Lists what it was given.

    Attributes:
        address: where it listens.
    """

    def __init__(self) -> None:
        self.address = ""
        self._nodes: list[orchestrator_pb2.Node] = []

    def add(self, report: node_pb2.NodeReport, state: int = orchestrator_pb2.NODE_STATE_ACTIVE) -> None:
        """A node as reported."""
        node = orchestrator_pb2.Node(state=state)  # type: ignore[arg-type]
        node.report.CopyFrom(report)
        self._nodes.append(node)

    async def ListNodes(
        self, request: orchestrator_pb2.ListNodesRequest, context: Any
    ) -> orchestrator_pb2.ListNodesResponse:
        return orchestrator_pb2.ListNodesResponse(nodes=self._nodes)


@asynccontextmanager
async def serving() -> AsyncIterator[Roster]:
    """A roster that is served."""
    roster, server = Roster(), GrpcServer("orchestrator", "127.0.0.1:0")
    name, link = "tradewind.v1.OrchestratorService", "tradewind.v1.NodeLinkService"
    server.add(orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server, roster, name)
    server.add(
        node_pb2_grpc.add_NodeLinkServiceServicer_to_server, Orchestrator(), link, no_deadline=frozenset({"Connect"})
    )
    await server.start()
    roster.address = server.address
    yield roster
    await server.stop(0)
