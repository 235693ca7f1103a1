"""The gateway's OpenAI-compatible endpoint, as a client sees it: chat, streamed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from tradewind.domain.errors import RemoteError, ServiceUnavailable

CONNECT_LIMIT_S: Final = 5.0
# Between two pieces of a stream: a long prompt on a slow machine, queue included.
PIECE_LIMIT_S: Final = 120.0


@dataclass
class Answer:
    """An answer, filled as it comes.

    Attributes:
        usage: as the gateway gave it: token counts, energy_mj, its source.
        ttft_ms: from sending the request to the first piece, as this client saw it.
        total_ms: from sending the request to the end.
    """

    model: str
    content: str = ""
    finish_reason: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    ttft_ms: float = 0.0
    total_ms: float = 0.0


class GatewayClient:
    """Chats with deployments.

    Args:
        url: "http://host:port".
    """

    def __init__(self, url: str) -> None:
        self.url = url
        limits = httpx.Timeout(PIECE_LIMIT_S, connect=CONNECT_LIMIT_S)
        self._http = httpx.Client(base_url=url, timeout=limits, trust_env=False)

    def chat(
        self, deployment: str, messages: Sequence[dict[str, str]], answer: Answer, **options: Any
    ) -> Iterator[str]:
        """Streams the text of an answer and fills `answer` on the way.

        Args:
            deployment: name of the deployment.
            messages: OpenAI's: {"role": "user", "content": "…"}.
            answer: filled with text, usage and times.
            options: further fields of OpenAI's request: max_tokens, temperature, top_p, seed, stop.

        Raises:
            RemoteError: the gateway refused; `status` is like gRPC's.
            ServiceUnavailable: it does not answer.
        """
        body = {"model": deployment, "messages": list(messages), "stream": True}
        body |= {"stream_options": {"include_usage": True}} | options
        began = time.monotonic()
        try:
            with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise _refusal(response.status_code, response.text)
                for piece in _events(_lines(response)):
                    text = _take(piece, answer)
                    if text and not answer.ttft_ms:
                        answer.ttft_ms = (time.monotonic() - began) * 1e3
                    yield text
        except httpx.HTTPError as error:
            raise ServiceUnavailable(
                f"the gateway does not answer at {self.url} ({error})", {"service": "gateway", "address": self.url}
            ) from error
        finally:
            answer.total_ms = (time.monotonic() - began) * 1e3

    def healthy(self, limit_s: float = CONNECT_LIMIT_S) -> bool:
        """Whether the gateway says that it is ready."""
        try:
            return self._http.get("/readyz", timeout=limit_s).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def reachable(self, limit_s: float = CONNECT_LIMIT_S) -> bool:
        """Whether the gateway answers at all, ready or not."""
        try:
            self._http.get("/healthz", timeout=limit_s)
        except httpx.HTTPError:
            return False
        return True

    def close(self) -> None:
        """Closes all connections."""
        self._http.close()


def _lines(response: httpx.Response) -> Iterator[str]:
    """Lines of an event stream, ended by LF only: text holds other separators, at which `iter_lines` would cut it."""
    rest = b""
    for piece in response.iter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode()
    if rest:
        yield rest.decode()


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Server-sent events of OpenAI's stream, to "[DONE]"."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        piece: dict[str, Any] = json.loads(data)
        if "error" in piece:
            raise _refusal(int(piece["error"].get("status") or 500), data)
        yield piece


def _take(piece: dict[str, Any], answer: Answer) -> str:
    answer.usage = piece.get("usage") or answer.usage
    text = ""
    for choice in piece.get("choices", ()):
        text += (choice.get("delta") or {}).get("content") or ""
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
    answer.content += text
    return text


# OpenAI's codes, as the gateway uses them, back to reasons of the closed list.
_REASON: Final = {
    "model_not_found": "NOT_FOUND",
    "invalid_value": "INVALID_FIELD",
    "context_length_exceeded": "CONTEXT_EXCEEDED",
    "request_too_large": "MESSAGE_TOO_LARGE",
    "overloaded": "OVERLOADED",
    "no_ready_replica": "NO_READY_REPLICA",
    "replica_lost": "REPLICA_LOST",
    "service_unavailable": "SERVICE_UNAVAILABLE",
    "live_state_unavailable": "LIVE_STATE_UNAVAILABLE",
    "timeout": "JOB_TIMEOUT",
}
_STATUS: Final = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 422: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED"}


def _refusal(code: int, text: str) -> RemoteError:
    """What an answer in OpenAI's error form means."""
    try:
        error = json.loads(text)["error"]
        message, reason = str(error["message"]), _REASON.get(str(error.get("code")), "INTERNAL")
    except (ValueError, KeyError, TypeError):
        message, reason = f"the gateway answered {code}: {text[:200]}", "INTERNAL"
    metadata = {"kind": "deployment"} if reason == "NOT_FOUND" else {}
    return RemoteError(reason, _STATUS.get(code, "UNAVAILABLE" if code == 503 else "INTERNAL"), message, metadata)
