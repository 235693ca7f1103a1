"""Server-sent events: a stream of chunks, its errors in OpenAI's form, its end. Ends the generations when it ends."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.gateway.generation import TextGeneration
from services.gateway.openai.answers import Answer
from services.gateway.openai.choices import merged
from services.gateway.openai.refusal import refusal_of
from tradewind.domain.errors import TradewindError
from tradewind.v1 import inference_pb2

_DONE: Final = b"data: [DONE]\n\n"


class EventStream(Response):
    """Sends events as they come; the client's slowness is felt by the sender, nothing piles up."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[bytes], headers: Mapping[str, str], generations: Sequence[TextGeneration]
    ) -> None:
        # Proxies such as nginx would otherwise keep chunks back.
        super().__init__(headers={**headers, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._generations = events, generations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends all; the generations are ended however this ends, even before the first event."""
        try:
            async with aclosing(self._events) as events:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            for generation in self._generations:
                generation.close()


async def events(answer: Answer, generations: Sequence[TextGeneration], *, usage: bool) -> AsyncGenerator[bytes]:
    """The events of one request.

    A failure after the first token is an event with "error" in OpenAI's form, and then the stream ends without [DONE]:
    the HTTP status has been sent long since.

    Args:
        answer: the interface's shape.
        generations: all started.
        usage: whether the figures are wanted in a chunk of their own.
    """
    usages: list[inference_pb2.Usage | None] = [None] * len(generations)
    # OpenAI's other chunks carry "usage": null when the figures are wanted.
    extra: dict[str, Any] = {"usage": None} if usage else {}
    try:
        async with aclosing(merged(generations)) as deltas:
            for opener in answer.openers():
                yield event(opener | extra)
            async for index, delta in deltas:
                if delta.usage is not None:
                    usages[index] = delta.usage
                yield event(answer.chunk(index, delta) | extra)
            if usage:
                yield event(answer.tail(usages))
            yield _DONE
    except TradewindError as error:
        yield event(refusal_of(error).body())


def event(value: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
