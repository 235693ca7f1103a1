"""Models and variants in PostgreSQL: metadata only, files lie in the blob store. The one writer of both tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Select, case, delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from tradewind.domain.errors import AlreadyExists, InvalidField, NotFound
from tradewind.store.database import Database
from tradewind.store.tables import ModelRow, VariantRow
from tradewind.v1 import compiler_pb2

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000


class Catalog:
    """Keeps and finds models and variants. Every method raises DatabaseUnavailable when PostgreSQL does not answer."""

    def __init__(self, database: Database) -> None:
        """Over a migrated database."""
        self._database = database

    async def add_model(self, model: compiler_pb2.Model) -> None:
        """Keeps a model under its name. Idempotent.

        Raises:
            AlreadyExists: the name is another model's, or the model has another name.
        """
        row = {"name": model.name, "record": model.SerializeToString(), "created_at": _time(model)}
        try:
            async with self._database.session() as session:
                statement = insert(ModelRow).values(model_id=model.model_id, **row)
                await session.execute(statement.on_conflict_do_nothing(index_elements=["model_id"]))
                kept = await session.get(ModelRow, model.model_id)
        except IntegrityError as error:
            raise AlreadyExists(
                f"another model is named {model.name!r}; import this one under another name", {"name": model.name}
            ) from error
        if kept is not None and kept.name != model.name:
            raise AlreadyExists(
                f"this very model is imported already, as {kept.name!r}; use that name", {"name": kept.name}
            )

    async def model(self, name_or_id: str) -> compiler_pb2.Model:
        """A model.

        Raises:
            NotFound: there is none.
        """
        if not name_or_id:
            raise InvalidField("model", "a model name or id is needed; `tradewind model list` shows them")
        column = ModelRow.model_id if name_or_id.startswith("sha256:") else ModelRow.name
        async with self._database.session() as session:
            row = (await session.scalars(select(ModelRow).where(column == name_or_id))).first()
        if row is None:
            raise NotFound("model", name_or_id, "`tradewind model list` shows what is imported")
        return compiler_pb2.Model.FromString(row.record)

    async def models(self, size: int, token: str) -> tuple[Sequence[compiler_pb2.Model], str]:
        """Models, newest first, and the token of the next page ("" at the end).

        Raises:
            InvalidField: a size or token that is none.
        """
        size = _page_size(size)
        query = select(ModelRow).order_by(ModelRow.created_at.desc(), ModelRow.model_id.desc()).limit(size + 1)
        if token:
            created, name = _read_token(token, 2)
            query = query.where(tuple_(ModelRow.created_at, ModelRow.model_id) < (_read_time(created), name))
        rows = await self._rows(query)
        last = rows[size - 1] if len(rows) > size else None
        more = f"{last.created_at.isoformat()}|{last.model_id}" if last is not None else ""
        return [compiler_pb2.Model.FromString(row.record) for row in rows[:size]], more

    async def add_variant(self, variant: compiler_pb2.Variant, cache_key: str) -> None:
        """Keeps a variant, in place of an earlier failure of the same build. Idempotent."""
        row = {
            "model_id": variant.model_id,
            "name": variant.name,
            "state": variant.state,
            "cache_key": cache_key,
            "record": variant.SerializeToString(),
            "created_at": _time(variant),
        }
        async with self._database.session() as session:
            await session.execute(
                delete(VariantRow).where(VariantRow.cache_key == cache_key, VariantRow.variant_id != variant.variant_id)
            )
            statement = insert(VariantRow).values(variant_id=variant.variant_id, **row)
            await session.execute(statement.on_conflict_do_update(index_elements=["variant_id"], set_=row))

    async def variant(self, variant_id: str) -> compiler_pb2.Variant:
        """A variant.

        Raises:
            NotFound: there is none.
        """
        async with self._database.session() as session:
            row = await session.get(VariantRow, variant_id)
        if row is None:
            raise NotFound("variant", variant_id, "`tradewind variant list` shows what is built")
        return compiler_pb2.Variant.FromString(row.record)

    async def variants(
        self, model_id: str, state: int, size: int, token: str
    ) -> tuple[Sequence[compiler_pb2.Variant], str]:
        """Variants, admitted ones first, then newest first, and the token of the next page ("" at the end).

        Raises:
            InvalidField: a size or token that is none.
        """
        size = _page_size(size)
        rank = case((VariantRow.state == compiler_pb2.VARIANT_STATE_ADMITTED, 1), else_=0)
        query = select(VariantRow).order_by(rank.desc(), VariantRow.created_at.desc(), VariantRow.variant_id.desc())
        if model_id:
            query = query.where(VariantRow.model_id == model_id)
        if state:
            query = query.where(VariantRow.state == state)
        if token:
            ranked, created, name = _read_token(token, 3)
            place = (int(ranked == "1"), _read_time(created), name)
            query = query.where(tuple_(rank, VariantRow.created_at, VariantRow.variant_id) < place)
        rows = await self._rows(query.limit(size + 1))
        last = rows[size - 1] if len(rows) > size else None
        more = f"{_rank(last)}|{last.created_at.isoformat()}|{last.variant_id}" if last is not None else ""
        return [compiler_pb2.Variant.FromString(row.record) for row in rows[:size]], more

    async def _rows(self, query: Select[Any]) -> Sequence[Any]:
        async with self._database.session() as session:
            return (await session.scalars(query)).all()


def _rank(row: VariantRow) -> int:
    return int(row.state == compiler_pb2.VARIANT_STATE_ADMITTED)


def _time(message: compiler_pb2.Model | compiler_pb2.Variant) -> datetime:
    return message.create_time.ToDatetime(tzinfo=UTC)


def _page_size(size: int) -> int:
    if size > MAX_PAGE:
        raise InvalidField("page_size", f"{size} is more than {MAX_PAGE}")
    return size or DEFAULT_PAGE


def _read_token(token: str, parts: int) -> list[str]:
    found = token.split("|")
    if len(found) != parts:
        raise InvalidField("page_token", "not a token of this list; start again without one")
    return found


def _read_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidField("page_token", "not a token of this list; start again without one") from error
