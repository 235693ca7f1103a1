"""Writes live state to Redis: node reports as they come, routes when they change, all again when Redis lost them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from tradewind.domain.errors import LiveStateUnavailable
from tradewind.domain.routes import DeploymentRoute
from tradewind.store.live import LiveState
from tradewind.v1 import node_pb2

# How often it is looked whether Redis still has the routes; with the report period this bounds the rebuild.
CHECK_S: Final = 1.0


class Publisher:
    """The one writer of live state. Never waits for Redis on anybody else's time.

    Args:
        live: Redis.
        on_routes: called when routes were written.
    """

    def __init__(self, live: LiveState, on_routes: Callable[[], None]) -> None:
        self._live, self._on_routes = live, on_routes
        self._reports: dict[str, node_pb2.NodeReport] = {}
        self._routes: tuple[DeploymentRoute, ...] | None = None
        self._written: tuple[DeploymentRoute, ...] | None = None
        self._replicas: frozenset[str] | None = None
        self._version = 0
        self._news = asyncio.Event()
        self._away = False
        self._log = structlog.get_logger("publisher")

    @property
    def available(self) -> bool:
        """Whether Redis answered last time."""
        return not self._away

    def knows(self, replica_id: str) -> bool:
        """Whether gateways can read of a replica. Before the first publication the last leader's table is in force."""
        return self._replicas is None or replica_id in self._replicas

    def report(self, report: node_pb2.NodeReport) -> None:
        """A node's newest report; of several only the last is written."""
        self._reports[report.node_id] = report
        self._news.set()

    def routes(self, routes: Sequence[DeploymentRoute]) -> None:
        """The whole routing table."""
        self._routes = tuple(routes)
        if self._routes != self._written:
            self._news.set()

    def stand_down(self) -> None:
        """Another orchestrator leads: its table is not written over.

        A write under way still ends; the new leader finds its own gone within `CHECK_S` and writes it again.
        """
        self._routes = self._written = self._replicas = None

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._news.wait()
            self._news.clear()
            try:
                await self.write()
            except LiveStateUnavailable as error:
                if not self._away:
                    self._log.warning("live state is away; planning and pushing go on", error=error.message)
                self._away = True
                # A bounded pause: reports would otherwise wake us at once, again and again.
                await asyncio.sleep(CHECK_S)

    async def write(self) -> None:
        """Writes what is new, once.

        Raises:
            LiveStateUnavailable: Redis does not answer.
        """
        while self._reports:
            name = next(iter(self._reports))
            report = self._reports[name]
            await self._live.put_node(report)
            if self._reports.get(name) is report:
                del self._reports[name]
        if self._routes is not None and (self._routes != self._written or await self._lost()):
            wanted = self._routes
            # Read apart, the version of a Redis that was flushed in between would pass for this table's.
            self._version = await self._live.publish_routes(wanted)
            if self._routes is None:
                return
            self._written = wanted
            self._replicas = frozenset(replica.replica_id for route in wanted for replica in route.replicas)
            self._on_routes()
        if self._away:
            self._log.info("live state is back")
            self._away = False

    async def _lost(self) -> bool:
        """Whether Redis has forgotten, or somebody else wrote."""
        return await self._live.routes_version() != self._version
