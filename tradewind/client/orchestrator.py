"""The orchestrator, as a client sees it: deployments, nodes, decisions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tradewind.client.wire import CALL_LIMIT_S, Wire
from tradewind.v1 import orchestrator_pb2, orchestrator_pb2_grpc

WATCH_LIMIT_S: Final = 600.0


class OrchestratorClient:
    """Keeps deployments.

    Every method raises RemoteError when the orchestrator refuses and ServiceUnavailable when it does not answer.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub: Any = orchestrator_pb2_grpc.OrchestratorServiceStub(wire.channel)

    def create(
        self,
        name: str,
        spec: orchestrator_pb2.DeploymentSpec,
        *,
        allow_infeasible: bool = False,
        request_id: str = "",
    ) -> orchestrator_pb2.CreateDeploymentResponse:
        """Creates a deployment."""
        request = orchestrator_pb2.CreateDeploymentRequest(
            request_id=request_id or uuid.uuid4().hex, name=name, spec=spec, allow_infeasible=allow_infeasible
        )
        response: orchestrator_pb2.CreateDeploymentResponse = self._wire.call(self._stub.CreateDeployment, request)
        return response

    def update(
        self,
        name: str,
        spec: orchestrator_pb2.DeploymentSpec,
        *,
        expected_generation: int = 0,
        allow_infeasible: bool = False,
        request_id: str = "",
    ) -> orchestrator_pb2.UpdateDeploymentResponse:
        """Changes a deployment's whole wish."""
        request = orchestrator_pb2.UpdateDeploymentRequest(
            request_id=request_id or uuid.uuid4().hex,
            deployment=name,
            spec=spec,
            expected_generation=expected_generation,
            allow_infeasible=allow_infeasible,
        )
        response: orchestrator_pb2.UpdateDeploymentResponse = self._wire.call(self._stub.UpdateDeployment, request)
        return response

    def deployment(self, name: str) -> orchestrator_pb2.Deployment:
        """A deployment by name or id."""
        request = orchestrator_pb2.GetDeploymentRequest(deployment=name)
        found: orchestrator_pb2.Deployment = self._wire.call(self._stub.GetDeployment, request).deployment
        return found

    def deployments(self) -> list[orchestrator_pb2.Deployment]:
        """All deployments, by name."""
        return self._wire.pages(self._stub.ListDeployments, orchestrator_pb2.ListDeploymentsRequest(), "deployments")

    def delete(self, name: str, *, request_id: str = "") -> orchestrator_pb2.Deployment:
        """Ends a deployment."""
        request = orchestrator_pb2.DeleteDeploymentRequest(request_id=request_id or uuid.uuid4().hex, deployment=name)
        gone: orchestrator_pb2.Deployment = self._wire.call(self._stub.DeleteDeployment, request).deployment
        return gone

    def watch(
        self, deployments: Sequence[str] = (), *, limit_s: float = WATCH_LIMIT_S
    ) -> Iterator[list[orchestrator_pb2.Deployment]]:
        """Deployments now and at each change, until the limit ends it with ServiceUnavailable."""
        request = orchestrator_pb2.WatchDeploymentsRequest(deployments=deployments)
        with self._wire.errors():
            for message in self._stub.WatchDeployments(request, timeout=limit_s):
                yield list(message.deployments)

    def preview(self, name: str, spec: orchestrator_pb2.DeploymentSpec) -> orchestrator_pb2.PreviewPlanResponse:
        """What would be done, without doing it."""
        request = orchestrator_pb2.PreviewPlanRequest(name=name, spec=spec)
        response: orchestrator_pb2.PreviewPlanResponse = self._wire.call(self._stub.PreviewPlan, request)
        return response

    def explain(self, name: str) -> orchestrator_pb2.Explanation:
        """Why a deployment is placed as it is."""
        request = orchestrator_pb2.ExplainDeploymentRequest(deployment=name)
        why: orchestrator_pb2.Explanation = self._wire.call(self._stub.ExplainDeployment, request).explanation
        return why

    def decisions(self, deployment: str = "", *, limit: int = 20) -> list[orchestrator_pb2.Decision]:
        """The newest decisions, newest first."""
        request = orchestrator_pb2.ListDecisionsRequest(deployment=deployment, page_size=limit)
        return list(self._wire.call(self._stub.ListDecisions, request).decisions)

    def replay(self, deployment: str = "", *, limit: int = 20) -> list[orchestrator_pb2.Replay]:
        """The newest decisions made again with the orchestrator's code, newest first."""
        request = orchestrator_pb2.ReplayDecisionsRequest(deployment=deployment, page_size=limit)
        return list(self._wire.call(self._stub.ReplayDecisions, request, CALL_LIMIT_S).replays)

    def nodes(self) -> list[orchestrator_pb2.Node]:
        """All nodes, by id."""
        return self._wire.pages(self._stub.ListNodes, orchestrator_pb2.ListNodesRequest(), "nodes")

    def drain(self, node_id: str, *, undo: bool = False, request_id: str = "") -> orchestrator_pb2.Node:
        """Takes work off a node, or ends the drain."""
        request = orchestrator_pb2.DrainNodeRequest(
            request_id=request_id or uuid.uuid4().hex, node_id=node_id, undo=undo
        )
        node: orchestrator_pb2.Node = self._wire.call(self._stub.DrainNode, request, CALL_LIMIT_S).node
        return node

    def set_power_budget(
        self, scope: str, limit_mw: int, *, request_id: str = ""
    ) -> orchestrator_pb2.SetPowerBudgetResponse:
        """Limits the power of the site, a node or a device; 0 takes the limit away."""
        request = orchestrator_pb2.SetPowerBudgetRequest(
            request_id=request_id or uuid.uuid4().hex, scope=scope, limit_mw=limit_mw
        )
        answer: orchestrator_pb2.SetPowerBudgetResponse = self._wire.call(
            self._stub.SetPowerBudget, request, CALL_LIMIT_S
        )
        return answer
