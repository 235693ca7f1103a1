"""/healthz and /readyz: alive, and able to route."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from services.gateway.routing.table import RouteTable


class Probes:
    """Answers probes.

    Ready means: the routing table was read at least once and no signal to stop came. Redis being away later does not
    make a gateway unready, for it goes on with the last table it knows.
    """

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        self._stopping = False

    def stopping(self) -> None:
        """Not ready from now on."""
        self._stopping = True

    @property
    def ready(self) -> bool:
        """Whether requests should come here."""
        return self._table.known and not self._stopping

    def report(self) -> dict[str, Any]:
        """What is there and what is missing."""
        table = self._table
        age_s = None if table.read_at_s is None else round(time.monotonic() - table.read_at_s, 1)
        missing = []
        if not table.known:
            missing.append(f"the routing table was never read: {table.trouble}")
        if self._stopping:
            missing.append("the gateway is stopping")
        return {
            "ready": self.ready,
            "missing": missing,
            "routing_table": {"age_s": age_s, "deployments": len(table.routes), "trouble": table.trouble or None},
        }

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["operation"])

        async def healthz() -> dict[str, str]:
            """Answers while the process is alive."""
            return {"status": "alive"}

        async def readyz() -> JSONResponse:
            """200 when requests should come here, else 503 with what is missing."""
            return JSONResponse(self.report(), 200 if self.ready else 503)

        router.add_api_route("/healthz", healthz, methods=["GET"])
        router.add_api_route("/readyz", readyz, methods=["GET"], response_class=JSONResponse)
        return router
