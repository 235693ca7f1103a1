"""What a search has learnt of a target is where the next search for a like model begins."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from services.compiler.catalog import Catalog
from services.compiler.importing import StoredModel
from services.compiler.order import Order
from services.compiler.search.devices import NoDevices
from services.compiler.search.records import SearchRecords, shape_class
from services.compiler.search.searching import Searcher, SearchOrder
from services.compiler.workshop import Workshop
from tests.compiler.conftest import LIMITS, silent
from tests.tiny_model import write_tiny_model
from tests.tiny_variant import TINY_RECIPE
from tradewind.domain.quality_floor import QualityFloor
from tradewind.rpc.operations import Progress
from tradewind.store.database import Database
from tradewind.v1 import compiler_pb2

pytestmark = pytest.mark.timeout(600)

GOOD = replace(TINY_RECIPE, name="good", prefill_chunks=(16,), decode_batches=(1,), context_buckets=(64,), slots=2)
BAD = replace(GOOD, name="bad", compiler_flags=("--no-such-flag",))


class Tried(Progress):
    """Recipes in the order in which a search has tried them; `began` with the first."""

    def __init__(self) -> None:
        self.recipes: list[str] = []
        self.began = asyncio.Event()

    def update(self, stage: str, share: float) -> None:
        """Hears "TARGET: RECIPE on the whole model: STAGE"."""
        words = stage.partition(" on the whole model")
        if words[1] and (recipe := words[0].rpartition(": ")[2]) not in self.recipes:
            self.recipes.append(recipe)
            self.began.set()


async def test_the_next_search_for_a_like_model_begins_with_the_best(
    database: Database,
    asked_state: Path,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    workshop = Workshop(shutil.copytree(asked_state, tmp_path / "state"), LIMITS, places=1)
    records, catalog = SearchRecords(database), Catalog(database)
    searcher = Searcher((workshop.trier, workshop.prober), workshop.places, records, catalog, NoDevices())
    host = workshop.targets[0]

    async def wanted(folder: Path) -> tuple[StoredModel, SearchOrder]:
        stored = await workshop.importer.import_model(folder, silent)
        named = compiler_pb2.Model()
        named.CopyFrom(stored.model)
        named.name = folder.name
        await catalog.add_model(named)
        orders = tuple(Order(stored, recipe, host) for recipe in (BAD, GOOD))
        return stored, SearchOrder(f"search-{folder.name}", {host.name: orders}, 300.0, QualityFloor(), chain=False)

    stored, first = await wanted(tiny_folder)
    await searcher.search(first, tried := Tried())
    assert tried.recipes == ["bad", "good"], "the order of the book"
    assert (await records.of_model(stored.model.model_id, tiny_folder.name)).search_id == first.search_id
    shape = shape_class(stored.model)
    assert await records.best_recipes(host.resolved, shape) == ["good"]
    assert await records.best_recipes("vmvx:portable", shape) == []
    wide = compiler_pb2.Model(hidden_size=4096)
    assert await records.best_recipes(host.resolved, shape_class(wide)) == []

    other, second = await wanted(write_tiny_model(tmp_path / "other", seed=1))
    assert other.model.model_id != stored.model.model_id
    search = asyncio.create_task(searcher.search(second, tried := Tried()))
    async with asyncio.timeout(120):
        await tried.began.wait()
    search.cancel()
    await asyncio.gather(search, return_exceptions=True)
    assert tried.recipes == ["good"], "what was best before is tried first"
    workshop.close()
