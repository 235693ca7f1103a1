"""Profiles in PostgreSQL. Rows are written once, whole, and never changed; the newest one of a point is in force."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Select, select, tuple_

from tradewind.domain.errors import InvalidField
from tradewind.store.database import Database
from tradewind.store.tables import ProfileRow
from tradewind.v1 import profiler_pb2

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000
# Profiles of one model that a front or a reuse decision looks at; far above variants × kinds × devices.
MAX_OF_MODEL: Final = 10_000


class ProfileRecords:
    """Keeps and finds profiles.

    Args:
        database: migrated.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, profile: profiler_pb2.Profile) -> None:
        """Keeps a profile in one transaction.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer (so for every method here).
        """
        row = ProfileRow(
            profile_id=profile.profile_id,
            model_id=profile.model_id,
            variant_id=profile.point.variant_id,
            device_class=profile.point.device_class,
            partition_kind=profile.point.partition_kind,
            record=profile.SerializeToString(),
            created_at=profile.create_time.ToDatetime(tzinfo=UTC),
        )
        async with self._database.session() as session:
            session.add(row)

    async def page(
        self, model_id: str, variant_id: str, size: int, token: str
    ) -> tuple[Sequence[profiler_pb2.Profile], str]:
        """Profiles, newest first, and the token of the next page ("" at the end).

        Args:
            model_id: only of this model; "" means all.
            variant_id: only of this variant; "" means all.
            size: 0 means `DEFAULT_PAGE`; at most `MAX_PAGE`.
            token: of the page before; "" at first.

        Raises:
            InvalidField: a token that is none.
        """
        size = min(size or DEFAULT_PAGE, MAX_PAGE)
        query = _newest_first(model_id, variant_id)
        if token:
            query = query.where(tuple_(ProfileRow.created_at, ProfileRow.profile_id) < _position(token))
        rows = await self._rows(query.limit(size + 1))
        page = rows[:size]
        more = f"{page[-1].created_at.isoformat()}|{page[-1].profile_id}" if len(rows) > size else ""
        return [profiler_pb2.Profile.FromString(row.record) for row in page], more

    async def all_of(self, model_id: str) -> list[profiler_pb2.Profile]:
        """Every profile of a model, newest first."""
        rows = await self._rows(_newest_first(model_id, "").limit(MAX_OF_MODEL))
        return [profiler_pb2.Profile.FromString(row.record) for row in rows]

    async def at_point(self, variant_id: str, device_class: str, partition_kind: str) -> list[profiler_pb2.Profile]:
        """Every profile of a variant on a partition kind of a device class, newest first."""
        query = _newest_first("", variant_id).where(
            ProfileRow.device_class == device_class, ProfileRow.partition_kind == partition_kind
        )
        rows = await self._rows(query.limit(MAX_PAGE))
        return [profiler_pb2.Profile.FromString(row.record) for row in rows]

    async def _rows(self, query: Select[ProfileRow]) -> Sequence[ProfileRow]:
        async with self._database.session() as session:
            rows: Sequence[ProfileRow] = (await session.scalars(query)).all()
            return rows


def _newest_first(model_id: str, variant_id: str) -> Select[ProfileRow]:
    query = select(ProfileRow).order_by(ProfileRow.created_at.desc(), ProfileRow.profile_id.desc())
    if model_id:
        query = query.where(ProfileRow.model_id == model_id)
    if variant_id:
        query = query.where(ProfileRow.variant_id == variant_id)
    return query


def _position(token: str) -> tuple[datetime, str]:
    created, _, profile_id = token.partition("|")
    try:
        return datetime.fromisoformat(created), profile_id
    except ValueError:
        raise InvalidField("page_token", "not a token of this list; start again without one") from None
