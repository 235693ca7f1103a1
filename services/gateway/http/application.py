"""The HTTP application: endpoints, probes, metrics, page, and every error in OpenAI's form."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Final

import structlog
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from services.gateway.authorization import ApiKeys
from services.gateway.http.probes import Probes
from services.gateway.http.surround import Surround
from services.gateway.openai.documentation import document
from services.gateway.openai.endpoints import OpenAiEndpoints
from services.gateway.openai.refusal import Refusal, refusal_of
from services.gateway.openai.shapes import ChatRequest, CompletionRequest
from services.gateway.status.endpoints import StatusEndpoints
from tradewind.domain.errors import TradewindError
from tradewind.metrics import Registry

# As nginx counts it; no standard status says so.
_CLIENT_LEFT: Final = 499


def application(
    openai: OpenAiEndpoints, probes: Probes, status: StatusEndpoints, registry: Registry, keys: ApiKeys, version: str
) -> ASGIApp:
    """Puts the application together."""
    app = FastAPI(
        title="Tradewind gateway",
        version=version,
        description="OpenAI-compatible text generation under latency and energy SLOs.",
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(openai.router())
    app.include_router(probes.router())
    app.include_router(status.router())

    async def metrics() -> Response:
        """Metrics in Prometheus' text form."""
        return Response(registry.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    app.add_api_route("/metrics", metrics, methods=["GET"], tags=["operation"])
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(TradewindError, _failed)
    app.add_exception_handler(HTTPException, _no_such)
    app.add_exception_handler(ClientDisconnect, _left)
    faults = registry.counter("gateway_faults_total", "HTTP requests that failed by a fault of ours")

    async def fault(request: Request, error: Exception) -> Response:
        faults.inc()
        return await _fault(request, error)

    app.add_exception_handler(Exception, fault)
    document(app, (ChatRequest, CompletionRequest))
    return Surround(app, keys)


def _answer(refusal: Refusal) -> JSONResponse:
    return JSONResponse(refusal.body(), refusal.status, refusal.headers())


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _answer(error)


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, TradewindError)
    return _answer(refusal_of(error))


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path}: {HTTPStatus(error.status_code).phrase.lower()}; see /openapi.json"
    refusal = Refusal(error.status_code, "invalid_request_error", "unknown_url", what)
    return JSONResponse(refusal.body(), error.status_code, {**refusal.headers(), **(error.headers or {})})


async def _left(_: Request, __: Exception) -> Response:
    # Nobody reads this: the client went away while it sent its body.
    return Response(status_code=_CLIENT_LEFT)


async def _fault(request: Request, error: Exception) -> Response:
    incident = uuid.uuid4().hex[:12]
    structlog.get_logger("http").error("a fault of ours", path=request.url.path, incident=incident, exc_info=error)
    message = f"a fault in the server, incident {incident}; its log has the details"
    return _answer(Refusal(500, "server_error", "internal_error", message))
