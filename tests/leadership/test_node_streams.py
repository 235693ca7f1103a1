"""Streams of node agents at orchestrators that lead and that follow: real gRPC, no plan, no store."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from services.orchestrator.core.rollout.rollout import Target
from services.orchestrator.forwarder import HANDED_ON
from services.orchestrator.leader_watch import LeaderWatch
from services.orchestrator.links import Links
from services.orchestrator.node_stream import NodeStreams
from services.orchestrator.servicer import LINK_SERVICE_NAME, NodeLinkServicer
from tests.orchestrator.fake_agent import FakeAgent
from tests.orchestrator.stand import until
from tradewind.domain.errors import TradewindError, reason_of
from tradewind.rpc.client import open_channel
from tradewind.rpc.errors import translated
from tradewind.rpc.server import GrpcServer
from tradewind.v1 import node_pb2, node_pb2_grpc

PATIENCE_S = 1.0
NOBODY = "127.0.0.1:1"


class Post:
    """The part of an orchestrator where agents connect."""

    def __init__(self) -> None:
        self.links, self.watch = Links(time.monotonic, time.time, lambda _: None), LeaderWatch()
        self.handed_on = 0
        self.streams = NodeStreams(self.links, self.watch, time.monotonic, self._count, PATIENCE_S)
        self._server = GrpcServer("post", "127.0.0.1:0")
        self._server.add(
            node_pb2_grpc.add_NodeLinkServiceServicer_to_server,
            NodeLinkServicer(self.streams),
            LINK_SERVICE_NAME,
            no_deadline=frozenset({"Connect"}),
        )

    async def __aenter__(self) -> Post:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)
        await self.streams.close()

    @property
    def address(self) -> str:
        """Where it answers."""
        return self._server.address

    def leads(self, *others: Post) -> None:
        """It leads from now on, and the others know."""
        self.links.clear()
        self.watch.tell(here=True, address=self.address)
        for other in others:
            other.follows(self.address)

    def follows(self, address: str) -> None:
        """Another leads from now on."""
        self.watch.tell(here=False, address=address)
        self.links.clear()

    def connected(self, node_id: str = "n1") -> bool:
        """Whether the node speaks with it as the leader."""
        link = self.links.get(node_id)
        return link is not None and link.connected

    def push(self, fencing: int) -> None:
        """Tells the node an empty target."""
        self.links.push((Target("n1", ()),), 1, fencing)

    def _count(self, more: int) -> None:
        self.handed_on += more


@pytest.fixture
async def posts() -> AsyncIterator[tuple[Post, Post, Post]]:
    async with AsyncExitStack() as stack:
        one, two, three = [await stack.enter_async_context(Post()) for _ in range(3)]
        yield one, two, three


def told(agent: FakeAgent, fencing: int) -> Callable[[], bool]:
    """Whether the agent obeys the leader with that number."""
    return lambda: agent.target is not None and agent.target.fencing == fencing


async def test_one_stream_lives_on_while_the_lead_goes_round(posts: tuple[Post, Post, Post]) -> None:
    one, two, three = posts
    one.leads(two, three)
    async with FakeAgent(two.address) as agent:
        for fencing, (leader, *others) in enumerate(((one, two, three), (three, one, two), (two, one, three)), 1):
            leader.leads(*others)
            await until(leader.connected, f"the node at leader {fencing}")
            assert two.handed_on == (leader is not two)
            leader.push(fencing)
            await until(told(agent, fencing), f"the target of leader {fencing}")
        one.leads(two, three)
        await until(one.connected, "the node at the first leader again")
        assert agent.connections == 1
    await until(lambda: not one.connected(), "the leader to see the agent gone")
    assert two.handed_on == 0


async def ended(post: Post, leader: Post, *reports: node_pb2.NodeReport, handed_on: bool = False) -> TradewindError:
    """How a stream ends that says one report after the other, each when the leader has heard the last."""
    channel = open_channel(post.address)

    async def said() -> AsyncIterator[node_pb2.ConnectRequest]:
        for report in reports:
            yield node_pb2.ConnectRequest(report=report)
            await until(lambda wanted=report: heard(leader, wanted), "the report to be heard", limit_s=5.0)

    metadata = ((HANDED_ON, "1"),) if handed_on else ()
    stub: Any = node_pb2_grpc.NodeLinkServiceStub(channel)
    try:
        with pytest.raises(TradewindError) as caught, translated("orchestrator"):
            async for _ in stub.Connect(said(), metadata=metadata, timeout=20.0):
                pass
    finally:
        await channel.close(None)
    return caught.value


def heard(leader: Post, report: node_pb2.NodeReport) -> bool:
    """Whether this is what the leader knows of the node."""
    link = leader.links.get(report.node_id)
    return link is not None and link.report == report


def report(node_id: str = "n1", epoch: int = 2, sequence: int = 1) -> node_pb2.NodeReport:
    """An empty one."""
    return node_pb2.NodeReport(node_id=node_id, boot_id="boot", agent_epoch=epoch, sequence=sequence)


async def test_who_reaches_no_leader_sends_agents_there_themselves(posts: tuple[Post, Post, Post]) -> None:
    one, two, three = posts
    two.follows(NOBODY)
    began_s = time.monotonic()
    error = await ended(two, three, report())
    assert (reason_of(error), error.metadata["leader"]) == ("NOT_LEADER", NOBODY)
    assert time.monotonic() - began_s >= PATIENCE_S, "a leader that is restarted is waited for"
    # Two of which each thinks that the other leads do not play ball.
    one.follows(two.address)
    two.follows(one.address)
    assert reason_of(await ended(two, three, report(), handed_on=True)) == "NOT_LEADER"
    error = await ended(one, three, report())
    assert (reason_of(error), error.metadata["leader"]) == ("NOT_LEADER", two.address)


async def test_the_leader_s_refusals_come_through(posts: tuple[Post, Post, Post]) -> None:
    one, two, three = posts
    one.leads(two, three)
    for post in (one, two):
        error = await ended(post, one, report(sequence=5), report("n2"))
        assert reason_of(error) == "INVALID_FIELD"
        assert "this stream speaks for 'n1'" in error.message
    async with FakeAgent(two.address) as agent:
        await until(one.connected, "the node at the leader")
        assert reason_of(await ended(three, one, report())) == "STALE_GENERATION", "an older agent"
        newest = one.links.get("n1")
        assert newest
        late = report(epoch=newest.report.agent_epoch, sequence=0)
        assert reason_of(await ended(three, one, late)) == "STALE_GENERATION", "a report that was long on its way"
        assert agent.connections == 1
