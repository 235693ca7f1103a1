"""Reads a request's JSON body within limits and checks it against a shape; every mistake becomes a clear 400."""

from __future__ import annotations

import asyncio
import json
from typing import NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from services.gateway.limits import BODY_WAIT_S, MAX_BODY_BYTES
from services.gateway.openai.refusal import Refusal, invalid

B = TypeVar("B", bound=BaseModel)


async def read_body(request: Request, shape: type[B]) -> B:
    """The request's body as a value of `shape`.

    Raises:
        Refusal: it is too large, too slow, no UTF-8, no JSON object, or does not fit the shape.
        ClientDisconnect: the client went away.
    """
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            content = await _read(request)
    except TimeoutError:
        raise Refusal(
            408, "invalid_request_error", "timeout", f"the body did not come within {BODY_WAIT_S:.0f} s"
        ) from None
    return check(_parse(content), shape)


def check(value: object, shape: type[B]) -> B:
    """A parsed body as a value of `shape`.

    Raises:
        Refusal: it does not fit; names the field.
    """
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        # Unions put the name of the member that did not fit into the path; only names and indices help.
        path = [str(part) for part in first["loc"] if isinstance(part, int) or str(part).isidentifier()]
        field = ".".join(path) or None
        raise invalid(field, f"{field or 'the body'}: {first['msg']}") from error


async def _read(request: Request) -> bytes:
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(content)


def _parse(content: bytes) -> object:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid(
            None, f"the body is not UTF-8 (byte {error.start} is wrong); send JSON in UTF-8", "invalid_encoding"
        ) from error
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise invalid(None, "the body is nested too deeply", "invalid_json") from error
    except ValueError as error:
        raise invalid(None, f"the body is not JSON: {error}", "invalid_json") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _too_large() -> Refusal:
    return Refusal(
        413, "invalid_request_error", "request_too_large", f"the body is larger than {MAX_BODY_BYTES} bytes; shorten it"
    )
