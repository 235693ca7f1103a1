"""What surrounds every HTTP request: admission, API keys, cancellation when the client goes away. Plain ASGI, since
wrappers that buffer would cut the link between a client's disappearance and the generation it pays for."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.authorization import ApiKeys
from services.gateway.limits import MAX_OPEN_REQUESTS
from services.gateway.openai.refusal import Refusal

_GUARDED = "/v1/"


class Surround:
    """Lets requests in and ends their work when the client is gone.

    Args:
        app: the application.
        keys: who may use /v1.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self._app, self._keys = app, keys
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            if scope["path"].startswith(_GUARDED):
                self._keys.require_http(Headers(scope=scope).get("authorization"))
                if self._open >= MAX_OPEN_REQUESTS:
                    raise Refusal(429, "rate_limit_error", "overloaded", f"{self._open} requests are open; retry later")
        except Refusal as refusal:
            await JSONResponse(refusal.body(), refusal.status, refusal.headers())(scope, receive, send)
            return
        self._open += 1
        try:
            await _while_there(self._app, scope, receive, send)
        finally:
            self._open -= 1


async def _while_there(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Runs the application and cancels it as soon as the client is gone."""
    body_read, gone = asyncio.Event(), asyncio.Event()

    async def read_body() -> Message:
        if body_read.is_set():
            await gone.wait()
            return {"type": "http.disconnect"}
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            body_read.set()
        return message

    async def watch() -> None:
        # Before the body is read, `receive` belongs to the application.
        await body_read.wait()
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    async def work() -> None:
        try:
            await app(scope, read_body, send)
        except ClientDisconnect:
            return

    working, watching = asyncio.create_task(work()), asyncio.create_task(watch())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        if not working.done():
            working.cancel()
        results = await asyncio.gather(working, watching, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]
