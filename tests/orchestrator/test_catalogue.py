"""The catalogue keeps what did not change as the same objects: memos of plans go by identity."""

from __future__ import annotations

from operator import is_

from services.orchestrator.catalogue import Catalogue
from tests.orchestrator.neighbours import Shelf, serve
from tradewind.rpc.client import open_channel


async def test_profiles_that_are_read_again_are_the_same_objects() -> None:
    shelf = Shelf()  # type: ignore[abstract]
    shelf.put("fast")
    server, address = await serve(shelf)
    news: list[int] = []
    try:
        async with open_channel(address) as channel:
            catalogue = Catalogue(channel, channel, lambda: news.append(1))
            await catalogue.refresh()
            first = catalogue.catalog.profiles
            await catalogue.refresh()
            assert first and all(map(is_, first, catalogue.catalog.profiles))
            shelf.profiles[0].loads[0].power_mw += 1
            shelf.put("lean")
            await catalogue.refresh()
            known = {id(profile) for profile in first}
            assert [id(profile) in known for profile in catalogue.catalog.profiles].count(True) == len(first) - 1
            assert len(news) == 2
    finally:
        await server.stop(0)
