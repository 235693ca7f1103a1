"""Who leads: looks at the lease again and again; leads when it is free, follows when another holds it.

A follower answers reads from what is stored and what Redis has of nodes, and hands writes and node streams on to the
leader. Losing the lease is no fault: the same process follows from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from services.orchestrator.control import Control
from services.orchestrator.lease import RENEW_S, Lease
from tradewind.domain.errors import DatabaseUnavailable, LiveStateUnavailable, StaleGeneration, TradewindError
from tradewind.store.live import LiveState

# How often a follower looks whether the lease is free, and reads what the leader has written.
FOLLOW_S: Final = 1.0


class Leadership:
    """Leads or follows until cancelled.

    Args:
        lease: the row in PostgreSQL.
        control: what is led.
        live: Redis, where a follower sees nodes.
        now_s: monotonic clock.
    """

    def __init__(self, lease: Lease, control: Control, live: LiveState, now_s: Callable[[], float]) -> None:
        self._lease, self._control, self._live, self._now_s = lease, control, live, now_s
        self._renew_at_s = 0.0
        self._log = structlog.get_logger("leadership")

    async def run(self) -> None:
        """Looks for ever; PostgreSQL away changes nothing: who leads goes on, who follows waits."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                await self.look()
            except TradewindError as error:
                self._log.warning("cannot look at the lease", error=error.message)

    async def look(self) -> None:
        """One look.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        if self._control.leading:
            await self._renew()
        elif await self._lease.take():
            self._renew_at_s = self._now_s() + RENEW_S
            await self._control.lead()
            await self._tell_redis()
        else:
            await self._follow()

    async def resign(self) -> None:
        """Gives the lease back at a stop. Never raises."""
        if not self._control.leading:
            return
        try:
            await self._control.keep_gone()
            await self._lease.release()
        except TradewindError as error:
            self._log.info("the lease could not be given back, it will run out", error=error.message)

    async def _renew(self) -> None:
        if self._now_s() < self._renew_at_s:
            return
        self._renew_at_s = self._now_s() + RENEW_S
        try:
            await self._lease.renew()
            await self._control.keep_gone()
        except StaleGeneration as error:
            self._control.depose(error)
        except DatabaseUnavailable:
            # With PostgreSQL away for all, nobody can lead but us. With it away for us alone, another may lead by now.
            await self._ask_redis()
            raise
        else:
            await self._tell_redis()

    async def _ask_redis(self) -> None:
        with contextlib.suppress(LiveStateUnavailable):
            newest = await self._live.leader()
            if newest > self._lease.fencing:
                self._control.depose(self._lease.lost(newest))

    async def _tell_redis(self) -> None:
        with contextlib.suppress(LiveStateUnavailable):
            await self._live.put_leader(self._lease.fencing)

    async def _follow(self) -> None:
        leader = await self._lease.leader()
        try:
            reports = await self._live.nodes()
        except LiveStateUnavailable:
            # Nodes are then shown as last seen.
            reports = []
        await self._control.follow(leader.holder, reports)
