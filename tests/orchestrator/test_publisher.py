"""Who writes the routing table, and what gateways can know of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from services.orchestrator.publisher import Publisher
from tests.orchestrator.stand import until
from tradewind.domain.routes import DeploymentRoute, ReplicaRoute
from tradewind.store.live import LiveState
from tradewind.v1 import node_pb2


def _table(replica_id: str) -> list[DeploymentRoute]:
    replica = ReplicaRoute(replica_id, "n1", "n1:7410", "sha256:fast", "fast", 4)
    return [DeploymentRoute("d1", "chat", "sha256:tiny", 512, (replica,))]


@asynccontextmanager
async def _publishing(live: LiveState) -> AsyncIterator[Publisher]:
    publisher = Publisher(live, lambda: None)
    task = asyncio.ensure_future(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_replica_is_known_only_when_its_route_is_written(redis_url: str) -> None:
    live = LiveState(redis_url)
    async with _publishing(live) as publisher:
        assert publisher.knows("r1"), "before the first publication the last leader's table is in force"
        publisher.routes([])
        await until(lambda: not publisher.knows("r1"), "the empty table to be written")
        publisher.routes(_table("r1"))
        assert not publisher.knows("r1")
        await until(lambda: publisher.knows("r1"), "the route to be written")
        assert [r.replica_id for r in (await live.routes())["chat"].replicas] == ["r1"]
    await live.close()


async def test_one_that_stands_down_does_not_write_over_the_new_leader_s_table(redis_url: str) -> None:
    live = LiveState(redis_url)
    async with _publishing(live) as old, _publishing(live) as new:
        old.routes(_table("r1"))
        await until(lambda: _routed(live, "r1"), "the old leader's table")
        old.stand_down()
        new.routes(_table("r2"))
        await until(lambda: _routed(live, "r2"), "the new leader's table")
        version = await live.routes_version()
        # Two reports one after the other: the second is written by a pass that began after the new table was there.
        for node in ("n1", "n2"):
            old.report(node_pb2.NodeReport(node_id=node))
            await until(lambda node=node: _reported(live, node), f"{node} to be written by the old one")
        assert await live.routes_version() == version
        assert old.knows("r2"), "it shows what others route"
    await live.close()


async def _routed(live: LiveState, replica_id: str) -> bool:
    routes = await live.routes()
    return "chat" in routes and [r.replica_id for r in routes["chat"].replicas] == [replica_id]


async def _reported(live: LiveState, node_id: str) -> bool:
    return node_id in [report.node_id for report in await live.nodes()]
