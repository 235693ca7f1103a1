"""Errors in OpenAI's form. The one table from Tradewind's reasons to HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from services.gateway.limits import RETRY_AFTER_S
from tradewind.domain.errors import TradewindError, reason_of

# reason → (HTTP status, OpenAI's type, code)
_TABLE: Final[dict[str, tuple[int, str, str | None]]] = {
    "INVALID_FIELD": (400, "invalid_request_error", "invalid_value"),
    "CONTEXT_EXCEEDED": (400, "invalid_request_error", "context_length_exceeded"),
    "NOT_FOUND": (404, "invalid_request_error", "model_not_found"),
    "MESSAGE_TOO_LARGE": (413, "invalid_request_error", "request_too_large"),
    "OVERLOADED": (429, "rate_limit_error", "overloaded"),
    "NOT_IMPLEMENTED": (501, "invalid_request_error", "not_implemented"),
    "NO_READY_REPLICA": (503, "server_error", "no_ready_replica"),
    "REPLICA_LOST": (503, "server_error", "replica_lost"),
    "SERVICE_UNAVAILABLE": (503, "server_error", "service_unavailable"),
    "LIVE_STATE_UNAVAILABLE": (503, "server_error", "live_state_unavailable"),
    "DATABASE_UNAVAILABLE": (503, "server_error", "service_unavailable"),
    "NO_SPACE": (503, "server_error", "no_space"),
    "JOB_TIMEOUT": (504, "server_error", "timeout"),
}
_UNEXPECTED: Final = (500, "server_error", "internal_error")
# Those a client does well to try again, and is told when.
_RETRY_STATUS: Final = (429, 503)


@dataclass
class Refusal(Exception):
    """An HTTP answer that is no success.

    Attributes:
        status: HTTP status.
        kind: OpenAI's "type".
        param: the field it is about.
    """

    status: int
    kind: str
    code: str | None
    message: str
    param: str | None = None

    def body(self) -> dict[str, Any]:
        """As JSON."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Beside the usual ones."""
        headers = {"Retry-After": str(RETRY_AFTER_S)} if self.status in _RETRY_STATUS else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


def refusal_of(error: TradewindError) -> Refusal:
    """What an error is over HTTP."""
    reason = reason_of(error)
    status, kind, code = _TABLE.get(reason, _UNEXPECTED)
    param = error.metadata.get("field")
    if reason == "NOT_FOUND":
        if error.metadata.get("kind") != "deployment":
            # What a replica or the compiler did not find is no mistake of the client.
            status, kind, code = 503, "server_error", "service_unavailable"
        else:
            param = "model"
    return Refusal(status, kind, code, error.message, param)


def invalid(param: str | None, message: str, code: str | None = "invalid_value") -> Refusal:
    """A mistake in the request."""
    return Refusal(400, "invalid_request_error", code, message, param)


def unsupported(param: str, hint: str) -> Refusal:
    """A parameter that would change the answer and that is not served; better refused than ignored."""
    return invalid(param, f"{param} is not supported by this server: {hint}", "unsupported_parameter")
