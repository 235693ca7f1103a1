"""A leader that dies before, in and after every commit, every push and every publication of a swap, on real stores.

One process: control loop, lease, records and routes are the live ones on real PostgreSQL and Redis; time is a number.
Links, records and publisher are the live ones too, but for a counter that ends the leader. The next leader takes the
lease that has run out; what that takes of real time comes on top of `LEASE_S`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.catalogue import Catalogue
from services.orchestrator.control import Control
from services.orchestrator.core.liveness import Patience
from services.orchestrator.deployments import DeploymentWrites
from services.orchestrator.gauges import Gauges
from services.orchestrator.leadership import FOLLOW_S
from services.orchestrator.lease import LEASE_S, Lease
from services.orchestrator.link import Link
from services.orchestrator.links import Links
from services.orchestrator.listener import TrafficListener
from services.orchestrator.publisher import Publisher
from services.orchestrator.records import Records
from tests.leadership.test_take_over import TAKE_OVER_S
from tests.orchestrator.fake_agent import FakeAgent
from tests.orchestrator.neighbours import Shelf, serve
from tests.orchestrator.stand import make_spec, new_id
from tradewind.domain.routes import DeploymentRoute
from tradewind.metrics import Registry
from tradewind.rpc.client import open_channel
from tradewind.store.database import Database
from tradewind.store.live import LiveState
from tradewind.store.tables import LeaderRow
from tradewind.v1 import node_pb2, orchestrator_pb2

TURN_S, MOST_TURNS = 0.5, 80
# Commits (two, each before, in and after), pushes (new, drain, end) and publications of a swap; more is no harm.
FEWEST_POINTS = 12


class Died(Exception):
    """The leader is no more."""


@dataclass
class Fuse:
    """Ends a leader at one of the points that it comes to."""

    left: int | None = None

    def point(self) -> None:
        """One point."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Died


class MortalRecords(Records):
    """Dies before a transaction, before it is committed, and after."""

    def __init__(self, database: Database, lease: Lease, fuse: Fuse) -> None:
        super().__init__(database, lease)
        self._fuse = fuse

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        self._fuse.point()
        async with super().begin() as session:
            yield session
            self._fuse.point()
        self._fuse.point()


class MortalLinks(Links):
    """Dies before and after a node is told a target."""

    fuse: Fuse

    def _tell(self, link: Link, message: node_pb2.NodeTarget) -> None:
        self.fuse.point()
        super()._tell(link, message)
        self.fuse.point()


class MortalPublisher(Publisher):
    """Dies before and after a new routing table is handed over."""

    fuse: Fuse
    _newest: tuple[DeploymentRoute, ...] = ()

    def routes(self, routes: Sequence[DeploymentRoute]) -> None:
        changed, self._newest = tuple(routes) != self._newest, tuple(routes)
        if changed:
            self.fuse.point()
        super().routes(routes)
        if changed:
            self.fuse.point()


@dataclass
class House:
    """Stores, catalogue and agent outlive leaders."""

    database: Database
    live: LiveState
    catalogue: Catalogue
    agent: FakeAgent = field(default_factory=lambda: FakeAgent("", "n1"))
    fuse: Fuse = field(default_factory=Fuse)
    now_s: float = 0.0
    leaders: int = 0
    control: Any = None
    publisher: Any = None
    stream: int = 0

    def clock(self) -> float:
        return self.now_s

    async def lead(self) -> None:
        """Another leader, on a lease that has run out."""
        async with self.database.session() as session:
            await session.execute(update(LeaderRow).values(expires_at=func.clock_timestamp()))
        self.leaders += 1
        self.fuse = Fuse()
        lease = Lease(self.database, f"leader-{self.leaders}:7401")
        assert await lease.take()
        self.publisher = MortalPublisher(self.live, lambda: None)
        links = MortalLinks(self.clock, self.clock, self.publisher.report)
        links.fuse = self.publisher.fuse = self.fuse
        self.control = Control(
            MortalRecords(self.database, lease, self.fuse),
            links,
            self.catalogue,
            self.publisher,
            self.clock,
            Patience(),
            Gauges(Registry()),
            TrafficListener(self.live, self.clock, 0.0, lambda: None),
        )
        await self.control.lead()
        self.stream = links.open()

    async def turn(self) -> None:
        """Half a second: the agent reports and goes on, the leader looks, the agent hears of it."""
        self.now_s += TURN_S
        self.agent._live()
        link = self.control.links.hear(self.stream, self.agent._report())
        try:
            await self.control.look()
            await self.publisher.write()
        finally:
            if link.target is not None and link.target is not self.agent.target:
                self.agent._obey(link.target)

    async def swap(self, spec: orchestrator_pb2.DeploymentSpec, dies_after: int | None) -> bool:
        """Changes the wish and turns until it is served; False when the leader died on the way and another ended it."""
        self.fuse.left = dies_after
        request = orchestrator_pb2.UpdateDeploymentRequest(request_id=new_id(), deployment="chat", spec=spec)
        try:
            await self.served(request)
        except Died:
            began_s, fencing = time.monotonic(), self.control.records.fencing
            await self.lead()
            while self.agent.target is None or self.agent.target.fencing <= fencing:
                await self.turn()
            assert time.monotonic() - began_s + LEASE_S + FOLLOW_S <= TAKE_OVER_S
            await self.served(request)
            return False
        self.fuse.left = None
        return True

    async def served(self, request: orchestrator_pb2.UpdateDeploymentRequest) -> None:
        """Asks, again under the same number when nobody answered, and turns until all is done."""
        answer = await DeploymentWrites(self.control).update(request, 10.0)
        variant = next(c.point.variant_id for c in answer.explanation.candidates if c.chosen)
        for _ in range(MOST_TURNS):
            await self.turn()
            running = [(r.variant_id, r.state) for r in self.agent.replicas.values()]
            routes = (await self.live.routes()).get("chat")
            routed = [replica.replica_id for replica in routes.replicas] if routes else []
            if running == [(variant, node_pb2.REPLICA_STATE_READY)] and routed == list(self.agent.replicas):
                return
        raise AssertionError(f"not served by {variant}: {self.agent.states()}")


async def test_a_leader_may_die_at_every_commit_push_and_publication(database_url: str, redis_url: str) -> None:
    shelf = Shelf()  # type: ignore[abstract]
    shelf.put("fast", ttft_ms=100, tpot_ms=20, energy_mj=400, kinds=("cpu/1",))
    shelf.put("lean", ttft_ms=200, tpot_ms=40, energy_mj=250, kinds=("cpu/1",))
    server, address = await serve(shelf)
    channel, database, live = open_channel(address), Database(database_url), LiveState(redis_url)
    await database.migrate()
    house = House(database, live, Catalogue(channel, channel, lambda: None))
    await house.catalogue.refresh()
    try:
        await house.lead()
        await house.turn()
        create = orchestrator_pb2.CreateDeploymentRequest(request_id=new_id(), name="chat", spec=make_spec(ttft=300))
        await DeploymentWrites(house.control).create(create, 10.0)
        point, ended = 0, False
        while not ended:
            starts = len(house.agent.starts)
            ended = await house.swap(make_spec(ttft=150 if point % 2 == 0 else 300), point)
            assert len(house.agent.starts) == starts + (1 if point else 2), "one start for each swap, whoever leads"
            assert not house.agent.stale
            point += 1
        assert point > FEWEST_POINTS
    finally:
        await channel.close(None)
        await database.close()
        await live.close()
        await server.stop(0)
