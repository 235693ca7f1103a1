"""OrchestratorService and NodeLinkService on the wire. Reads are answered here; writes are handed on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar

from services.orchestrator.control import Control
from services.orchestrator.deployments import DeploymentWrites
from services.orchestrator.forwarder import HANDED_ON
from services.orchestrator.node_stream import NodeStreams
from services.orchestrator.node_view import gone_message, node_message
from services.orchestrator.node_writes import NodeWrites
from services.orchestrator.records import decisions, newest_explanation
from services.orchestrator.replays import Replays
from tradewind.domain.errors import InvalidField, NotFound
from tradewind.v1 import node_pb2, node_pb2_grpc, orchestrator_pb2, orchestrator_pb2_grpc

SERVICE_NAME: Final = "tradewind.v1.OrchestratorService"
LINK_SERVICE_NAME: Final = "tradewind.v1.NodeLinkService"
DEFAULT_PAGE: Final = 100
MOST_PAGE: Final = 1000

T = TypeVar("T")


class OrchestratorServicer(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Deployments, plans, nodes.

    Args:
        control: the control loop.
        forward: calls a method of the leader; used while another orchestrator leads.
    """

    def __init__(self, control: Control, forward: Callable[[str, Any, Any], Awaitable[Any]]) -> None:
        self._control, self._forward = control, forward
        self._deployments, self._nodes = DeploymentWrites(control), NodeWrites(control)
        self._replays = Replays(control.records, time.monotonic)

    async def CreateDeployment(self, request: Any, context: Any) -> Any:
        """See the contract, for every method here."""
        if not self._control.leading:
            return await self._forward("CreateDeployment", request, context)
        return await self._deployments.create(request, context.time_remaining())

    async def UpdateDeployment(self, request: Any, context: Any) -> Any:
        """Compare-and-set on the generation."""
        if not self._control.leading:
            return await self._forward("UpdateDeployment", request, context)
        return await self._deployments.update(request, context.time_remaining())

    async def DeleteDeployment(self, request: Any, context: Any) -> Any:
        """Drains and stops."""
        if not self._control.leading:
            return await self._forward("DeleteDeployment", request, context)
        return await self._deployments.delete(request, context.time_remaining())

    async def PreviewPlan(self, request: Any, context: Any) -> Any:
        """Plans and commits nothing."""
        if not self._control.leading:
            return await self._forward("PreviewPlan", request, context)
        return await self._deployments.preview(request, context.time_remaining())

    async def DrainNode(self, request: Any, context: Any) -> Any:
        """Make-before-break."""
        if not self._control.leading:
            return await self._forward("DrainNode", request, context)
        return await self._nodes.drain(request, context.time_remaining())

    async def SetPowerBudget(self, request: Any, context: Any) -> Any:
        """Stored, and kept when work is placed."""
        if not self._control.leading:
            return await self._forward("SetPowerBudget", request, context)
        return await self._nodes.budget(request)

    async def GetDeployment(self, request: Any, context: Any) -> orchestrator_pb2.GetDeploymentResponse:
        """By name or id."""
        record = self._control.register.find(request.deployment)
        return orchestrator_pb2.GetDeploymentResponse(deployment=self._control.showing.one(record))

    async def ListDeployments(self, request: Any, context: Any) -> orchestrator_pb2.ListDeploymentsResponse:
        """By name."""
        self._control.register.require_loaded()
        shown = [d for d in self._control.showing.all() if d.name > request.page_token]
        page, token = _page(shown, request.page_size, [d.name for d in shown])
        return orchestrator_pb2.ListDeploymentsResponse(deployments=page, next_page_token=token)

    async def WatchDeployments(
        self, request: Any, context: Any
    ) -> AsyncIterator[orchestrator_pb2.WatchDeploymentsResponse]:
        """Whole states at once and at each change; a name that does not exist yet is waited for."""
        wanted, last = list(request.deployments), None
        async for _ in self._control.showing.changes():
            shown = [
                d for d in self._control.showing.all() if not wanted or d.name in wanted or d.deployment_id in wanted
            ]
            if shown != last:
                last = shown
                yield orchestrator_pb2.WatchDeploymentsResponse(deployments=shown)

    async def ExplainDeployment(self, request: Any, context: Any) -> orchestrator_pb2.ExplainDeploymentResponse:
        """The explanation kept with the newest decision."""
        record = self._control.register.find(request.deployment)
        explanation = self._control.register.explanations.get(record.deployment_id)
        if explanation is None:
            async with self._control.records.read() as session:
                explanation = await newest_explanation(session, record.deployment_id)
        if explanation is None:
            raise NotFound("explanation", request.deployment, "the deployment was not planned yet, retry in a second")
        return orchestrator_pb2.ExplainDeploymentResponse(explanation=explanation)

    async def ListDecisions(self, request: Any, context: Any) -> orchestrator_pb2.ListDecisionsResponse:
        """Newest first."""
        deployment_id = self._deployment_id(request.deployment)
        if request.page_token and not request.page_token.isdigit():
            raise InvalidField("page_token", "it is not one that this method gave")
        before = int(request.page_token) if request.page_token else None
        size = _size(request.page_size)
        async with self._control.records.read() as session:
            found = await decisions(session, deployment_id, before, size + 1)
        token = str(found[size - 1][0]) if len(found) > size else ""
        return orchestrator_pb2.ListDecisionsResponse(
            decisions=[decision for _, decision in found[:size]], next_page_token=token
        )

    async def ReplayDecisions(self, request: Any, context: Any) -> orchestrator_pb2.ReplayDecisionsResponse:
        """Newest first; ends in time for the caller's deadline with what was done by then."""
        deployment_id = self._deployment_id(request.deployment)
        return await self._replays.replay(deployment_id, _size(request.page_size), context.time_remaining())

    async def ListNodes(self, request: Any, context: Any) -> orchestrator_pb2.ListNodesResponse:
        """By id."""
        self._control.register.require_loaded()
        links = self._control.links
        here = {n.node_id: n for n in self._control.nodes()}
        gone = {link.node.node_id: link for link in links.departed.all()}
        names = [name for name in sorted({*here, *gone}) if name > request.page_token]
        page, token = _page(names, request.page_size, names)
        messages = [node_message(here[n], links.get(n)) if n in here else gone_message(gone[n]) for n in page]
        return orchestrator_pb2.ListNodesResponse(nodes=messages, next_page_token=token)

    def _deployment_id(self, name: str) -> str:
        """Decisions outlive deployments: an id that is not known any more is searched for as it is."""
        try:
            return self._control.register.find(name).deployment_id if name else ""
        except NotFound:
            return name


class NodeLinkServicer(node_pb2_grpc.NodeLinkServiceServicer):
    """One stream for each node agent.

    Args:
        streams: serves them.
    """

    def __init__(self, streams: NodeStreams) -> None:
        self._streams = streams

    async def Connect(self, request_iterator: Any, context: Any) -> AsyncIterator[node_pb2.ConnectResponse]:
        """Whole reports up, whole targets down, until either side ends; whoever leads.

        Raises:
            NotLeader: another orchestrator leads and is not reached from here; agents connect to that one.
        """
        first_hand = HANDED_ON not in dict(context.invocation_metadata() or ())
        async with aclosing(self._streams.targets(request_iterator, may_hand_on=first_hand)) as targets:
            async for target in targets:
                yield node_pb2.ConnectResponse(target=target)


def _size(page_size: int) -> int:
    if page_size > MOST_PAGE:
        raise InvalidField("page_size", f"{page_size}; at most {MOST_PAGE} are possible")
    return page_size or DEFAULT_PAGE


def _page(items: Sequence[T], page_size: int, keys: Sequence[str]) -> tuple[Sequence[T], str]:
    """The first page of items and the key to go on after; items are sorted by key."""
    size = _size(page_size)
    return items[:size], keys[size - 1] if len(items) > size else ""
