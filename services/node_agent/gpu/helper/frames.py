"""Frames between agent, server and worker: one line of JSON each way, with a limit on its length.

→ {"id": 7, "verb": "instances", "arguments": {"uuid": "GPU-…"}}
← {"id": 7, "answer": […]}   or   {"id": 7, "error": {"kind": "InUse", "message": "…", "code": 19, "uuid": "GPU-…"}}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from services.node_agent.gpu import faults
from services.node_agent.gpu.helper.verbs import VERBS, Arguments, Verb

# The longest request has seven small fields.
MAX_REQUEST_BYTES: Final = 2048
# Sixteen boards with all their clocks, or a table of profiles, take some 100 KiB.
MAX_ANSWER_BYTES: Final = 1 << 20

# A worker's first line.
READY: Final = b"ready\n"

_KINDS: Final[dict[str, type[faults.GpuError]]] = {
    kind.__name__: kind
    for kind in (
        faults.NotSupported,
        faults.NoPermission,
        faults.NotThere,
        faults.InvalidRequest,
        faults.InUse,
        faults.NoRoom,
        faults.ResetRequired,
        faults.BoardLost,
        faults.DriverTrouble,
        faults.NoDriver,
        faults.HelperAway,
    )
}


class _Envelope(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    id: Annotated[int, Field(ge=0, le=1 << 53)]
    verb: Annotated[str, Field(max_length=40)]
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is of the list and well formed."""

    number: int
    name: str
    verb: Verb
    arguments: Arguments


def parse(line: bytes) -> Request:
    """The request of a line.

    Raises:
        InvalidRequest: it is none; the message says why and holds nothing of the line beyond names of fields.
    """
    try:
        envelope = _Envelope.model_validate_json(line)
    except ValidationError as error:
        raise faults.InvalidRequest(f"not a request: {_why(error)}") from None
    verb = VERBS.get(envelope.verb)
    if verb is None:
        raise faults.InvalidRequest(f"unknown verb; there are {', '.join(VERBS)}")
    try:
        arguments = verb.arguments.model_validate(envelope.arguments)
    except ValidationError as error:
        raise faults.InvalidRequest(f"{envelope.verb}: {_why(error)}") from None
    return Request(envelope.id, envelope.verb, verb, arguments)


def request_line(number: int, name: str, arguments: dict[str, Any]) -> bytes:
    """The line of a request."""
    return _line({"id": number, "verb": name, "arguments": arguments})


def answer_line(number: int, form: TypeAdapter[Any], answer: Any) -> bytes:
    """The line of an answer."""
    return b'{"id":%d,"answer":%b}\n' % (number, form.dump_json(answer))


def error_line(number: int, error: faults.GpuError) -> bytes:
    """The line of an error."""
    body = {"kind": type(error).__name__, "message": error.message, "code": error.code, "uuid": error.uuid}
    return _line({"id": number, "error": body})


def read_answer(line: bytes, number: int, form: TypeAdapter[Any]) -> Any:
    """The answer of a line.

    Raises:
        GpuError: what the far end answered.
        HelperAway: the line is no answer to this request.
    """
    try:
        body = json.loads(line)
        # A refusal of the connection itself is numbered 0.
        if body["id"] != number and not (body["id"] == 0 and "error" in body):
            raise ValueError(f"answer to {body['id']}, not to {number}")
        if "error" not in body:
            return form.validate_python(body["answer"])
        error = body["error"]
        kind, words = _KINDS[error["kind"]], (str(error["message"]), int(error["code"]), str(error["uuid"]))
    except (ValueError, KeyError, TypeError) as broken:
        raise faults.HelperAway(f"the helper's answer cannot be read: {broken!r}") from broken
    raise kind(*words)


def _line(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _why(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'line'}: {e['msg']}" for e in error.errors()[:3])
