"""Writes about nodes: drains and power budgets."""

from __future__ import annotations

from services.orchestrator.control import Control
from services.orchestrator.core.facts.fleet import Node
from services.orchestrator.deployments import PATIENCE_S, SERVICE
from services.orchestrator.node_view import gone_message, node_message
from services.orchestrator.records import set_budget, set_draining
from services.orchestrator.validate import check_scope
from tradewind.domain.errors import InvalidField, NotFound
from tradewind.store.requests import check_request_id, earlier_answer, remember_answer
from tradewind.v1 import orchestrator_pb2

# PostgreSQL's bigint; also about the power of all data centres there are.
MOST_MW = 2**63 - 1


class NodeWrites:
    """Drains nodes and limits power.

    Args:
        control: the control loop.
    """

    def __init__(self, control: Control) -> None:
        self._control = control

    async def drain(
        self, request: orchestrator_pb2.DrainNodeRequest, time_left_s: float
    ) -> orchestrator_pb2.DrainNodeResponse:
        """See the contract. Work leaves as its successors become ready; what has nowhere to go stays and is said."""
        control, kind = self._control, orchestrator_pb2.DrainNodeResponse
        check_request_id(request.request_id)
        self._shown(request.node_id)
        if not request.undo:
            await control.until_plannable(max(min(time_left_s - 2.0, PATIENCE_S), 0.0))
        async with control.exclusive():
            others = tuple(name for name in control.register.draining if name != request.node_id)
            draining = others if request.undo else tuple(sorted((*others, request.node_id)))
            proposal = await control.propose(control.register.wishes(), draining)
            async with control.records.begin() as session:
                earlier = await earlier_answer(session, SERVICE, "DrainNode", request.request_id, request, kind)
                if earlier:
                    return earlier
                await set_draining(session, request.node_id, not request.undo)
                word = "may have work again" if request.undo else "is drained"
                await control.proposals.write(session, f"node {request.node_id} {word}", proposal)
                response = kind(node=self._shown(request.node_id, draining))
                await remember_answer(session, SERVICE, "DrainNode", request.request_id, request, response)
            control.register.draining = draining
            control.adopt(proposal)
        return response

    async def budget(self, request: orchestrator_pb2.SetPowerBudgetRequest) -> orchestrator_pb2.SetPowerBudgetResponse:
        """See the contract. Every plan keeps it, by mean modelled power; work for which nothing fits goes on."""
        control, kind = self._control, orchestrator_pb2.SetPowerBudgetResponse
        check_request_id(request.request_id)
        node_id, device_id = check_scope(request.scope)
        if request.limit_mw > MOST_MW:
            raise InvalidField("limit_mw", f"{request.limit_mw} mW; at most {MOST_MW} can be kept")
        if node_id and request.limit_mw:
            devices = [d.device_id for d in self._known(node_id).devices]
            if device_id and device_id not in devices:
                raise NotFound("device", device_id, f"{node_id} has: {', '.join(devices)}")
        async with control.exclusive():
            async with control.records.begin() as session:
                earlier = await earlier_answer(session, SERVICE, "SetPowerBudget", request.request_id, request, kind)
                if earlier:
                    return earlier
                await set_budget(session, request.scope, request.limit_mw)
                response = kind(scope=request.scope, limit_mw=request.limit_mw)
                await remember_answer(session, SERVICE, "SetPowerBudget", request.request_id, request, response)
            control.register.budgets.pop(request.scope, None)
            if request.limit_mw:
                control.register.budgets[request.scope] = request.limit_mw
        return response

    def _shown(self, node_id: str, draining: tuple[str, ...] | None = None) -> orchestrator_pb2.Node:
        """A node as it is or with other drains; one that is gone may come back, and is drained or not then.

        Raises:
            NotFound: there is no such node.
        """
        links = self._control.links
        gone = links.departed.get(node_id)
        return gone_message(gone) if gone else node_message(self._known(node_id, draining), links.get(node_id))

    def _known(self, node_id: str, draining: tuple[str, ...] | None = None) -> Node:
        """A node that is here.

        Raises:
            NotFound: there is no such node.
        """
        nodes = self._control.nodes(draining)
        found = next((n for n in nodes if n.node_id == node_id), None)
        if found is None:
            names = ", ".join(n.node_id for n in nodes)
            raise NotFound("node", node_id, f"there are: {names}" if names else "no node is connected")
        return found
