"""Searches and what they taught, in PostgreSQL. The one writer of both tables."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

from sqlalchemy import delete, select

from tradewind.domain.errors import NotFound
from tradewind.store.database import Database
from tradewind.store.tables import KnownRecipeRow, SearchRow
from tradewind.v1 import compiler_pb2


class SearchRecords:
    """Keeps and finds. Every method raises DatabaseUnavailable when PostgreSQL does not answer."""

    def __init__(self, database: Database) -> None:
        """Over a migrated database."""
        self._database = database

    async def add(self, search: compiler_pb2.Search, cache_key: str) -> None:
        """Keeps a search in place of earlier ones with the same key. Idempotent."""
        row = SearchRow(
            search_id=search.search_id,
            model_id=search.model_id,
            cache_key=cache_key,
            record=search.SerializeToString(),
        )
        async with self._database.session() as session:
            await session.execute(delete(SearchRow).where(SearchRow.cache_key == cache_key))
            await session.merge(row)

    async def known(self, cache_key: str) -> compiler_pb2.Search | None:
        """The search of that key."""
        return await self._newest(SearchRow.cache_key == cache_key)

    async def of_model(self, model_id: str, name: str) -> compiler_pb2.Search:
        """The newest of a model.

        Raises:
            NotFound: it was never searched for.
        """
        found = await self._newest(SearchRow.model_id == model_id)
        if found is None:
            raise NotFound("search of model", name, f"`tradewind variant build {name}` makes one")
        return found

    async def best_recipes(self, target: str, shape: str) -> list[str]:
        """Recipes by how well they did on a target for models of a shape class, best first."""
        query = (
            select(KnownRecipeRow.recipe)
            .where(KnownRecipeRow.target == target, KnownRecipeRow.shape_class == shape)
            .order_by(KnownRecipeRow.place, KnownRecipeRow.recipe)
        )
        async with self._database.session() as session:
            return list((await session.scalars(query)).all())

    async def remember(self, target: str, shape: str, recipes: Sequence[str]) -> None:
        """Keeps recipes, best first, in place of what was known. Idempotent."""
        async with self._database.session() as session:
            await session.execute(
                delete(KnownRecipeRow).where(KnownRecipeRow.target == target, KnownRecipeRow.shape_class == shape)
            )
            session.add_all(
                KnownRecipeRow(target=target, shape_class=shape, recipe=recipe, place=place)
                for place, recipe in enumerate(recipes)
            )

    async def _newest(self, condition: object) -> compiler_pb2.Search | None:
        query = select(SearchRow).where(condition).order_by(SearchRow.created_at.desc()).limit(1)  # type: ignore[arg-type]
        async with self._database.session() as session:
            row = (await session.scalars(query)).first()
        return None if row is None else compiler_pb2.Search.FromString(row.record)


def shape_class(model: compiler_pb2.Model) -> str:
    """Models whose best recipes are taken to be alike: task, and width, vocabulary and parameters to the nearest power
    of two.
    """
    kind = "tensors, " if model.task == compiler_pb2.MODEL_TASK_INFER else ""
    sizes = (model.hidden_size, model.vocabulary_size, model.parameter_count)
    hidden, vocabulary, parameters = (round(log2(max(1, size))) for size in sizes)
    return f"{kind}hidden 2^{hidden}, vocabulary 2^{vocabulary}, parameters 2^{parameters}"
