"""What every call passes on its way into a server: deadline check, error translation, log line, metrics.

One wrapper for each of the four kinds of method; all of them share `_Call`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
import structlog
from prometheus_client import Counter, Histogram

from tradewind.domain.errors import DeadlineRequired, Internal, NotImplementedYet, TradewindError, reason_of
from tradewind.metrics import Registry
from tradewind.rpc.errors import to_status
from tradewind.rpc.limits import LONGEST_DEADLINE_S

# Services of gRPC itself: their clients (probes, grpcurl) may come without a deadline.
_STANDARD: Final = ("/grpc.health.", "/grpc.reflection.")


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Checks, translates, logs and counts every call.

    Args:
        registry: where the metrics go.
        no_deadline: full method names ("/package.Service/Method") that may come without one.
    """

    def __init__(self, registry: Registry, no_deadline: Callable[[], frozenset[str]]) -> None:
        self._no_deadline = no_deadline
        self._log = structlog.get_logger("rpc")
        self._calls: Counter = registry.counter("rpc_calls_total", "Calls ended", ("method", "code"))
        self._seconds: Histogram = registry.histogram("rpc_seconds", "Seconds from call to end", ("method",))

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Wraps the handler found for a call."""
        handler: Any = await continuation(details)
        method: str = details.method
        if handler is None or method.startswith(_STANDARD):
            return handler  # type: ignore[no-any-return]
        streams_in, streams_out = handler.request_streaming, handler.response_streaming
        inner = _inner(handler)
        wrap = self._stream(method, inner) if streams_out else self._unary(method, inner)
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[streams_in, streams_out]
        return make(wrap, handler.request_deserializer, handler.response_serializer)

    def _unary(self, method: str, inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            began = time.monotonic()
            try:
                self._require_deadline(method, context)
                response = await inner(request, context)
            except BaseException as error:
                await self._fail(method, began, context, error)
                raise
            self._end(method, began, "OK")
            return response

        return call

    def _stream(self, method: str, inner: Callable[[Any, Any], AsyncIterator[Any]]) -> Callable[[Any, Any], Any]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            began = time.monotonic()
            try:
                self._require_deadline(method, context)
                async for response in inner(request, context):
                    yield response
            except BaseException as error:
                await self._fail(method, began, context, error)
                raise
            self._end(method, began, "OK")

        return call

    def _require_deadline(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if method in self._no_deadline():
            return
        remaining = context.time_remaining()
        # Without a deadline gRPC says about 9.2e18 rather than None.
        if remaining is None or remaining > LONGEST_DEADLINE_S:
            raise DeadlineRequired(f"{method} needs a deadline of at most {LONGEST_DEADLINE_S:.0f} s; set a timeout")

    async def _fail(
        self, method: str, began: float, context: grpc.aio.ServicerContext[Any, Any], error: BaseException
    ) -> None:
        """Aborts the call with what the error means; returns for errors that must pass through as they are."""
        if isinstance(error, grpc.aio.AbortError | GeneratorExit) or not isinstance(error, Exception):
            self._end(method, began, "CANCELLED")
            return
        if isinstance(error, NotImplementedError):
            error = NotImplementedYet(f"{method} is in the contract and not in this server yet")
        if not isinstance(error, TradewindError):
            incident = uuid.uuid4().hex[:12]
            self._log.error("call failed by a fault of ours", method=method, incident=incident, exc_info=error)
            error = Internal(
                f"a fault in the server, incident {incident}; its log has the details", {"incident": incident}
            )
        self._end(method, began, reason_of(error), error.message)
        await context.abort_with_status(to_status(error))  # type: ignore[attr-defined]

    def _end(self, method: str, began: float, code: str, message: str = "") -> None:
        seconds = time.monotonic() - began
        self._calls.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)
        log = self._log.debug if code in ("OK", "CANCELLED") else self._log.info
        log("call", method=method, code=code, ms=round(seconds * 1e3, 1), **({"error": message} if message else {}))


def _inner(handler: Any) -> Any:
    return handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
