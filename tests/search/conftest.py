"""The compiler's fixtures, and a state whose model was asked before."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from services.compiler.order import Order
from services.compiler.search.core.facts import WHOLE
from services.compiler.workshop import Workshop
from tests.compiler.conftest import LIMITS, imported_state, service, silent, tiny_folder
from tests.once import made_once
from tests.tiny_variant import TINY_RECIPE

__all__ = ["imported_state", "service", "tiny_folder"]


@pytest.fixture(scope="session")
def asked_state(imported_state: Path, tiny_folder: Path, shared_folder: Path) -> Path:
    """As `imported_state`, with the source's answers of the whole model and of its first layer; not to be changed."""

    async def ask(workshop: Workshop) -> None:
        stored = await workshop.importer.import_model(tiny_folder, silent)
        order = Order(stored, TINY_RECIPE, workshop.targets[0])
        for depth in (WHOLE, 1):
            await workshop.trier.references(order, (depth,), silent)

    def make(folder: Path) -> None:
        workshop = Workshop(Path(shutil.copytree(imported_state, folder)), LIMITS)
        asyncio.run(ask(workshop))
        workshop.close()

    return made_once(shared_folder / "asked", make)
