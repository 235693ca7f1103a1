"""The queue for places: bounded, owners in turn, all places for who must be alone, nothing lost by cancelling."""

from __future__ import annotations

import asyncio

from services.compiler.jobs.places import Places


async def test_owners_take_turns_however_many_jobs_each_has() -> None:
    places, order = Places(1), []

    async def job(owner: str) -> None:
        async with places.one(owner):
            order.append(owner)
            await asyncio.sleep(0)

    await asyncio.gather(*(job("many") for _ in range(5)), job("few"), job("few"))
    assert order == ["many", "many", "few", "many", "few", "many", "many"]


async def test_who_wants_all_waits_for_all_and_is_not_passed() -> None:
    places, order = Places(2), []
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        async with places.one("slow"):
            begun.set()
            await go.wait()
            order.append("slow")

    async def alone() -> None:
        async with places.all("measures"):
            order.append("alone")
            await asyncio.sleep(0)
            order.append("still alone")

    async def late() -> None:
        async with places.one("late"):
            order.append("late")

    tasks = [asyncio.create_task(slow())]
    await begun.wait()
    tasks += [asyncio.create_task(alone()), asyncio.create_task(late())]
    await asyncio.sleep(0)
    assert order == [], "one place is free, and who came later does not take it"
    go.set()
    await asyncio.gather(*tasks)
    assert order == ["slow", "alone", "still alone", "late"]


async def test_cancelled_waiters_leave_no_hole() -> None:
    places = Places(2)
    async with places.one("a"):
        waiting = [asyncio.create_task(_hold_all(places)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        async with asyncio.timeout(1), places.one("b"):
            pass
    async with asyncio.timeout(1), places.all("c"):
        pass


async def test_cancelling_in_the_moment_of_its_turn_gives_the_place_back() -> None:
    places = Places(1)
    async with places.one("a"):
        waiting = asyncio.create_task(_hold_all(places))
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1), places.one("b"):
        pass


async def _hold_all(places: Places) -> None:
    async with places.all("waits"):
        pass
