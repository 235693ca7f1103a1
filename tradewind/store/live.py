"""Live state in Redis: node reports and the routing table. It may vanish at any time; its writer writes it again.

Keys: `tradewind:node:ID` (a NodeReport, gone by itself after a few missed reports), `tradewind:routes` (hash:
deployment name → route), `tradewind:routes:version` (grows at each publication), `tradewind:traffic:ID` (a gateway's
counts, gone by itself when the gateway is), `tradewind:leader` (fencing number of the leading orchestrator, a hint).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tradewind.domain.errors import LiveStateUnavailable
from tradewind.domain.routes import DeploymentRoute
from tradewind.domain.traffic import GatewayCount
from tradewind.v1 import node_pb2

NODE_KEY: Final = "tradewind:node:"
ROUTES_KEY: Final = "tradewind:routes"
VERSION_KEY: Final = "tradewind:routes:version"
# A report lives this long; node agents report every 2 s. Only for readers: failure detection never relies on it.
NODE_TTL_S: Final = 15
LEADER_KEY: Final = "tradewind:leader"
TRAFFIC_KEY: Final = "tradewind:traffic:"
# A gateway tells every second; one that is silent so long is gone, and says nothing of its traffic any more.
TRAFFIC_TTL_S: Final = 10
# A call that takes longer counts as unavailable: live state is worth nothing late.
WAIT_S: Final = 2.0


class LiveState:
    """Reads and writes live state.

    Args:
        url: "redis://host:port/0" or "unix:///path.sock".
    """

    def __init__(self, url: str) -> None:
        self._redis: Any = redis.asyncio.from_url(
            url, socket_timeout=WAIT_S, socket_connect_timeout=WAIT_S, retry=Retry(NoBackoff(), 1)
        )

    async def put_node(self, report: node_pb2.NodeReport) -> None:
        """Keeps a node's report for `NODE_TTL_S`.

        Raises:
            LiveStateUnavailable: Redis does not answer (so for every method here).
        """
        async with _available():
            await self._redis.set(NODE_KEY + report.node_id, report.SerializeToString(), ex=NODE_TTL_S)

    async def nodes(self) -> list[node_pb2.NodeReport]:
        """Reports that are not too old, by node id."""
        async with _available():
            keys = sorted([key async for key in self._redis.scan_iter(match=NODE_KEY + "*", count=1000)])
            values = await self._redis.mget(keys) if keys else []
        return [node_pb2.NodeReport.FromString(value) for value in values if value is not None]

    async def publish_routes(self, routes: Sequence[DeploymentRoute]) -> int:
        """Replaces the whole routing table, at once; its version."""
        async with _available(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(ROUTES_KEY)
            if routes:
                pipeline.hset(ROUTES_KEY, mapping={route.name: route.to_json() for route in routes})
            pipeline.incr(VERSION_KEY)
            return int((await pipeline.execute())[-1])

    async def routes_version(self) -> int:
        """Grows at each publication; 0 when nothing was ever published (or Redis was flushed)."""
        async with _available():
            return int(await self._redis.get(VERSION_KEY) or 0)

    async def routes(self) -> dict[str, DeploymentRoute]:
        """The routing table, by deployment name."""
        async with _available():
            raw = await self._redis.hgetall(ROUTES_KEY)
        return {name.decode(): DeploymentRoute.from_json(value) for name, value in sorted(raw.items())}

    async def put_traffic(self, count: GatewayCount) -> None:
        """Keeps a gateway's counts for `TRAFFIC_TTL_S`."""
        async with _available():
            await self._redis.set(TRAFFIC_KEY + count.gateway_id, count.to_json(), ex=TRAFFIC_TTL_S)

    async def traffic(self) -> list[GatewayCount]:
        """Counts of gateways that are there, by id; what cannot be read is left out."""
        async with _available():
            keys = sorted([key async for key in self._redis.scan_iter(match=TRAFFIC_KEY + "*", count=1000)])
            values = await self._redis.mget(keys) if keys else []
        counts: list[GatewayCount] = []
        for value in values:
            with suppress(ValueError):
                counts += [GatewayCount.from_json(value)] if value is not None else []
        return counts

    async def put_leader(self, fencing: int) -> None:
        """Tells the orchestrators' newest fencing number: a hint for one that cannot ask PostgreSQL."""
        async with _available():
            await self._redis.set(LEADER_KEY, fencing)

    async def leader(self) -> int:
        """The newest fencing number told, 0 when none was (or Redis was flushed)."""
        async with _available():
            return int(await self._redis.get(LEADER_KEY) or 0)

    async def ping(self) -> None:
        """Returns when Redis answers."""
        async with _available():
            await self._redis.ping()

    async def close(self) -> None:
        """Closes all connections."""
        await self._redis.aclose()


@asynccontextmanager
async def _available() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise LiveStateUnavailable(f"Redis does not answer: {error}; retry later") from error
