"""/ and /status.json: the page, and what it shows. Reads orchestrator and Redis at most once a second."""

from __future__ import annotations

import asyncio
import datetime
import time
from importlib.resources import files
from typing import Any, Protocol

from fastapi import APIRouter
from starlette.responses import HTMLResponse, JSONResponse

from services.gateway.limits import CALL_WAIT_S, STATUS_AGE_S
from services.gateway.metrics import GatewayMetrics
from services.gateway.routing.dispatcher import Dispatcher
from services.gateway.routing.table import RouteTable
from services.gateway.status.picture import Observed, picture
from tradewind.domain.errors import LiveStateUnavailable, TradewindError
from tradewind.rpc.errors import translated
from tradewind.v1 import node_pb2, orchestrator_pb2, orchestrator_pb2_grpc

# Rows asked of the orchestrator; the contract's own maximum.
_PAGE_SIZE = 1_000


class Reports(Protocol):
    """Where node reports are read from."""

    async def nodes(self) -> list[node_pb2.NodeReport]:
        """Those that are not too old."""


class StatusEndpoints:
    """Serves the status page.

    Args:
        orchestrator: knows deployments and nodes.
        reports: node reports, for when it is away.
        table: the routing table.
        dispatcher: knows what is at work.
        metrics: knows the last minute.
        version: of this software.
    """

    def __init__(
        self,
        orchestrator: orchestrator_pb2_grpc.OrchestratorServiceAsyncStub,
        reports: Reports,
        table: RouteTable,
        dispatcher: Dispatcher,
        metrics: GatewayMetrics,
        version: str,
    ) -> None:
        self._orchestrator, self._reports, self._table = orchestrator, reports, table
        self._dispatcher, self._metrics, self._version = dispatcher, metrics, version
        self._page = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
        self._started_s = time.monotonic()
        self._lock = asyncio.Lock()
        self._made: tuple[float, dict[str, Any]] | None = None

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["status"])
        router.add_api_route("/", self.page, methods=["GET"], response_class=HTMLResponse, include_in_schema=False)
        router.add_api_route("/status.json", self.status, methods=["GET"], response_class=JSONResponse)
        return router

    async def page(self) -> HTMLResponse:
        """The page; it loads nothing from elsewhere."""
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
        return HTMLResponse(self._page, headers={"Content-Security-Policy": policy})

    async def status(self) -> JSONResponse:
        """Nodes, deployments, replicas and figures with their sources, now; "trouble" says what is missing and why."""
        async with self._lock:
            if self._made is None or time.monotonic() - self._made[0] > STATUS_AGE_S:
                made = await self._make()
                self._made = (time.monotonic(), made)
            return JSONResponse(self._made[1], headers={"Cache-Control": "no-store"})

    async def _make(self) -> dict[str, Any]:
        trouble: list[str] = []
        (deployments, nodes), reports = await asyncio.gather(self._ask_orchestrator(trouble), self._ask_redis(trouble))
        now = datetime.datetime.now(datetime.UTC)
        seen = Observed(
            deployments=deployments,
            nodes=nodes,
            reports=reports,
            routes=self._table.routes,
            outstanding=self._dispatcher.outstanding,
            recent=self._metrics.recent,
            at_work=self._metrics.at_work,
            now_s=now.timestamp(),
        )
        head = {
            "time": now.isoformat(timespec="milliseconds"),
            "version": self._version,
            "uptime_s": round(time.monotonic() - self._started_s),
            "trouble": trouble,
        }
        return head | picture(seen)

    async def _ask_orchestrator(
        self, trouble: list[str]
    ) -> tuple[list[orchestrator_pb2.Deployment] | None, list[orchestrator_pb2.Node] | None]:
        deployments = orchestrator_pb2.ListDeploymentsRequest(page_size=_PAGE_SIZE)
        nodes = orchestrator_pb2.ListNodesRequest(page_size=_PAGE_SIZE)
        try:
            with translated("orchestrator"):
                first = await self._orchestrator.ListDeployments(deployments, timeout=CALL_WAIT_S)
                second = await self._orchestrator.ListNodes(nodes, timeout=CALL_WAIT_S)
        except TradewindError as error:
            trouble.append(f"Orchestrator: {error.message}. Serving goes on; states and SLOs are not shown meanwhile.")
            return None, None
        return list(first.deployments), list(second.nodes)

    async def _ask_redis(self, trouble: list[str]) -> list[node_pb2.NodeReport]:
        try:
            return await self._reports.nodes()
        except LiveStateUnavailable as error:
            trouble.append(f"{error.message}. Routing goes on with the last table known.")
            return []
