"""Answers by request_id: a write sent twice is done once and answered alike."""

from __future__ import annotations

import hashlib
from typing import Final, TypeVar

from google.protobuf.message import Message
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradewind.domain.errors import InvalidField, RequestIdReused
from tradewind.store.tables import RequestRow

MAX_REQUEST_ID: Final = 128

M = TypeVar("M", bound=Message)


def content_digest(request: Message) -> str:
    """Digest of a request's content, deterministic for one build of protobuf."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()


def check_request_id(request_id: str) -> None:
    """Refuses a missing or absurd request_id.

    Raises:
        InvalidField: empty or longer than `MAX_REQUEST_ID`.
    """
    if not request_id or len(request_id) > MAX_REQUEST_ID:
        raise InvalidField(
            "request_id", f"1 to {MAX_REQUEST_ID} characters are needed, a new UUID for each new request"
        )


async def earlier_answer(
    session: AsyncSession, service: str, method: str, request_id: str, request: Message, answer: type[M]
) -> M | None:
    """The answer given to this request_id before, or None.

    Raises:
        RequestIdReused: it was used with another method or content.
    """
    row = await session.get(RequestRow, (service, request_id))
    if row is None:
        return None
    if row.method != method or row.content_digest != content_digest(request):
        raise RequestIdReused(f"request_id {request_id!r} was used for another {row.method}; take a new one")
    return answer.FromString(row.response)


async def remember_answer(
    session: AsyncSession, service: str, method: str, request_id: str, request: Message, response: Message
) -> None:
    """Keeps the answer within the caller's transaction; of two writers with one request_id the second fails."""
    await session.execute(
        insert(RequestRow).values(
            service=service,
            request_id=request_id,
            method=method,
            content_digest=content_digest(request),
            response=response.SerializeToString(),
        )
    )


async def answered(session: AsyncSession, service: str, request_id: str) -> bool:
    """Whether a request_id was used before."""
    found = await session.execute(
        select(RequestRow.request_id).where(RequestRow.service == service, RequestRow.request_id == request_id)
    )
    return found.first() is not None
