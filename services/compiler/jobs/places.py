"""Places for heavy jobs: so many at once, owners in turn, and all of them for who must be alone on the machine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Places:
    """A bounded pool with a fair queue: of those who wait, owners take turns, whatever number of jobs each has.

    Whoever wants all places waits its turn like the others and lets nobody past it, so that it cannot starve.
    """

    def __init__(self, count: int) -> None:
        """So many places, one at the least."""
        self._count = self._free = max(1, count)
        self._waiting: dict[str, deque[tuple[int, asyncio.Future[None]]]] = {}

    @property
    def count(self) -> int:
        """How many jobs run at once."""
        return self._count

    @asynccontextmanager
    async def one(self, owner: str) -> AsyncIterator[None]:
        """Holds a place.

        Args:
            owner: who has its turn by it, for instance an operation.
        """
        async with self._hold(1, owner):
            yield

    @asynccontextmanager
    async def all(self, owner: str) -> AsyncIterator[None]:
        """Holds every place: for measurements, that another job would disturb."""
        async with self._hold(self._count, owner):
            yield

    @asynccontextmanager
    async def _hold(self, wanted: int, owner: str) -> AsyncIterator[None]:
        await self._take(wanted, owner)
        try:
            yield
        finally:
            self._give(wanted)

    async def _take(self, wanted: int, owner: str) -> None:
        if not self._waiting and self._free >= wanted:
            self._free -= wanted
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append((wanted, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(wanted)
            else:
                self._forget(owner, turn)
            raise

    def _give(self, count: int) -> None:
        self._free += count
        self._admit()

    def _forget(self, owner: str, turn: asyncio.Future[None]) -> None:
        left = deque(entry for entry in self._waiting.get(owner, ()) if entry[1] is not turn)
        if left:
            self._waiting[owner] = left
        else:
            self._waiting.pop(owner, None)
        # Who stood behind it may fit where it did not.
        self._admit()

    def _admit(self) -> None:
        """Lets in the first of the first owner, who then goes to the end, until somebody does not fit."""
        while self._waiting:
            owner = next(iter(self._waiting))
            wanted, turn = self._waiting[owner][0]
            if wanted > self._free:
                return
            queue = self._waiting.pop(owner)
            queue.popleft()
            if queue:
                self._waiting[owner] = queue
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)
