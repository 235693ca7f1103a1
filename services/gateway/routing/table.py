"""The routing table as this gateway knows it: read from Redis again and again, kept when Redis is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

import structlog

from tradewind.domain.errors import LiveStateUnavailable, NotFound
from tradewind.domain.routes import DeploymentRoute


class RouteSource(Protocol):
    """Where the table is read from."""

    async def routes(self) -> dict[str, DeploymentRoute]:
        """By deployment name; LiveStateUnavailable when it does not answer, ValueError when it makes no sense."""

    async def routes_version(self) -> int:
        """Grows at each publication; 0 when nothing was ever published, or all was lost."""


class RouteTable:
    """The newest table known. `run` keeps it so; everything else only reads.

    A Redis that was flushed or restarted empty is no news: the last table known stays until the orchestrator has
    written it again.

    Args:
        source: Redis.
        poll_s: time between reads, in seconds.
    """

    def __init__(self, source: RouteSource, poll_s: float) -> None:
        self._source, self._poll_s = source, poll_s
        self._routes: Mapping[str, DeploymentRoute] = {}
        self._changed = asyncio.Event()
        self._log = structlog.get_logger("routes")
        self.read_at_s: float | None = None
        self.trouble = "not read yet"

    @property
    def known(self) -> bool:
        """Whether the table was ever read."""
        return self.read_at_s is not None

    @property
    def routes(self) -> Mapping[str, DeploymentRoute]:
        """By deployment name."""
        return self._routes

    def find(self, name: str) -> DeploymentRoute:
        """A deployment's route.

        Raises:
            LiveStateUnavailable: the table was never read.
            NotFound: no such deployment; says which there are.
        """
        self.require_known()
        route = self._routes.get(name)
        if route is None:
            there = ", ".join(sorted(self._routes)[:20])
            hint = f"deployed are: {there}" if there else "nothing is deployed yet; see `tradewind deploy --help`"
            raise NotFound("deployment", name, hint)
        return route

    def require_known(self) -> None:
        """Refuses while nothing is known.

        Raises:
            LiveStateUnavailable: the table was never read.
        """
        if not self.known:
            raise LiveStateUnavailable(f"the gateway has not read the routing table yet ({self.trouble}); retry later")

    async def changed(self, wait_s: float) -> None:
        """Returns at the next change, or after `wait_s` seconds."""
        try:
            async with asyncio.timeout(max(wait_s, 0)):
                await self._changed.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Reads for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._poll_s)

    async def refresh(self) -> None:
        """Reads once; on trouble the table stays as it is."""
        try:
            version = await self._source.routes_version()
            routes = await self._source.routes()
            lost = not routes and (version == 0 or version != await self._source.routes_version())
        except (LiveStateUnavailable, ValueError) as error:
            if not self.trouble:
                self._log.warning("routing table cannot be read, the last one known stays", error=str(error))
            self.trouble = str(error)
            return
        if lost and self.known:
            self.trouble = "Redis holds no routing table (it was flushed or restarted); the last one known stays"
            return
        if self.trouble:
            self._log.info("routing table read", deployments=len(routes))
        self.trouble, self.read_at_s = "", time.monotonic()
        if routes != self._routes:
            self._routes = routes
            self._changed.set()
            self._changed = asyncio.Event()
