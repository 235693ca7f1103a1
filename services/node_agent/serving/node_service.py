"""NodeAgentService: what the node is, and measurements on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from services.node_agent.report import Reporter
from services.node_agent.serving.dispatches import DispatchTimer
from services.node_agent.serving.measure import Measurer
from tradewind.v1 import node_pb2, node_pb2_grpc


class NodeAgentServicer(node_pb2_grpc.NodeAgentServiceServicer):
    """Answers about this node.

    Args:
        reporter: makes reports.
        measurer: runs measurements.
        timer: times dispatches.
    """

    def __init__(self, reporter: Reporter, measurer: Measurer, timer: DispatchTimer) -> None:
        self._reporter, self._measurer, self._timer = reporter, measurer, timer

    async def DescribeNode(self, request: node_pb2.DescribeNodeRequest, context: Any) -> node_pb2.DescribeNodeResponse:
        """See the contract."""
        return node_pb2.DescribeNodeResponse(report=self._reporter.report())

    async def Measure(self, request: node_pb2.MeasureRequest, context: Any) -> AsyncIterator[node_pb2.MeasureResponse]:
        """See the contract."""
        async for response in self._measurer.measure(request):
            yield response

    async def TimeDispatches(
        self, request: node_pb2.TimeDispatchesRequest, context: Any
    ) -> node_pb2.TimeDispatchesResponse:
        """See the contract."""
        return await self._timer.time(request)
