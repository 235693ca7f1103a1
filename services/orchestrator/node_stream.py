"""Streams of node agents, wherever they end: served here while this orchestrator leads, handed on to the leader else.

An agent's stream outlives the leader: when another takes the lead, who holds the stream asks that one, or serves it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any, Final

import grpc

from services.orchestrator.forwarder import HANDED_ON
from services.orchestrator.leader_watch import LeaderWatch
from services.orchestrator.lease import LEASE_S
from services.orchestrator.link import Link
from services.orchestrator.links import Links
from tradewind.domain.errors import InvalidField, NotLeader, TradewindError, reason_of
from tradewind.rpc.client import open_channel
from tradewind.rpc.errors import translated
from tradewind.rpc.service import end_task
from tradewind.v1 import node_pb2, node_pb2_grpc

# A leader that answers no ping within twice this is given up, as node agents do.
PING_MS: Final = 3_000
# How long a stream is kept while no leader is reached: until a dead one's lease has run out and another has read in.
PATIENCE_S: Final = LEASE_S + 3.0
# A leader that did not answer is asked again after this time: one that was restarted leads again at once.
RETRY_S: Final = 0.5
# Answers of the leader to the agent; every other error is one of the way there, or of a leader that leads no more.
_FINAL: Final = frozenset({"INVALID_FIELD", "STALE_GENERATION", "OVERLOADED"})


class Inbox:
    """What an agent said last. Requests are whole reports: an older one says nothing that the newest does not.

    Args:
        requests: of its stream.
    """

    def __init__(self, requests: AsyncIterator[node_pb2.ConnectRequest]) -> None:
        self._requests = requests
        self._newest: node_pb2.ConnectRequest | None = None
        self._news = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())
        self._reading.add_done_callback(lambda _: self._news.set())

    @property
    def ended(self) -> bool:
        """The agent says no more."""
        return self._reading.done()

    async def requests(self) -> AsyncIterator[node_pb2.ConnectRequest]:
        """The newest request, and each newer one until the agent's stream ends."""
        told: node_pb2.ConnectRequest | None = None
        while True:
            self._news.clear()
            if self._newest is not told:
                told = self._newest
                assert told is not None
                yield told
            elif self.ended:
                return
            else:
                await self._news.wait()

    def check(self) -> None:
        """Looks how the stream ended, if it did.

        Raises:
            InvalidField: it spoke for a second node.
        """
        if self.ended and not self._reading.cancelled():
            self._reading.result()

    async def close(self) -> None:
        """Reads no more. Idempotent."""
        await end_task(self._reading)

    async def _read(self) -> None:
        async for request in self._requests:
            said, node_id = self._newest, request.report.node_id
            if said is not None and node_id != said.report.node_id:
                raise InvalidField("report.node_id", f"this stream speaks for {said.report.node_id!r}")
            self._newest = request
            self._news.set()


class NodeStreams:
    """Serves streams of node agents.

    Args:
        links: nodes and their streams while this orchestrator leads.
        watch: who leads.
        now_s: monotonic clock.
        handed_on: told +1 and -1 as a stream begins and ends to be handed on.
        patience_s: how long a stream is kept while no leader is reached.
    """

    def __init__(
        self,
        links: Links,
        watch: LeaderWatch,
        now_s: Callable[[], float],
        handed_on: Callable[[int], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._links, self._watch, self._now_s = links, watch, now_s
        self._handed_on, self._patience_s = handed_on, patience_s
        self._address = ""
        self._channel: grpc.aio.Channel | None = None

    async def targets(self, requests: AsyncIterator[Any], *, may_hand_on: bool) -> AsyncGenerator[node_pb2.NodeTarget]:
        """The node's targets until its stream ends or another one speaks for the node.

        Args:
            requests: of the agent.
            may_hand_on: false for a stream that another orchestrator handed on already.

        Raises:
            NotLeader: another orchestrator leads and cannot be reached from here; agents go there themselves.
        """
        inbox = Inbox(requests)
        try:
            while not inbox.ended:
                here = self._watch.here
                if not here and not may_hand_on:
                    raise NotLeader(self._watch.address)
                async with aclosing(self._here(inbox) if here else self._elsewhere(inbox)) as targets:
                    async for target in targets:
                        yield target
                if here == self._watch.here:
                    break
            inbox.check()
        finally:
            await inbox.close()

    async def close(self) -> None:
        """Closes the channel to the leader. Idempotent."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close(None)

    async def _here(self, inbox: Inbox) -> AsyncGenerator[node_pb2.NodeTarget]:
        requests, stream = inbox.requests(), self._links.open()
        first = await anext(requests, None)
        if first is None or not self._watch.here:
            return
        link = self._links.hear(stream, first.report)
        hearing = asyncio.ensure_future(self._hear(stream, link, requests))
        try:
            async for target in self._links.targets(link, stream):
                yield target
            if hearing.done():
                hearing.result()
        finally:
            await end_task(hearing)
            self._links.closed(stream, link.report.node_id)

    async def _hear(self, stream: int, link: Link, requests: AsyncIterator[node_pb2.ConnectRequest]) -> None:
        try:
            async for request in requests:
                self._links.hear(stream, request.report)
        finally:
            self._links.closed(stream, link.report.node_id)
            link.news.set()

    async def _elsewhere(self, inbox: Inbox) -> AsyncGenerator[node_pb2.NodeTarget]:
        """Targets of whoever leads elsewhere, through changes of the leader, until this orchestrator leads."""
        heard_s = self._now_s()
        while not (inbox.ended or self._watch.here):
            changed, address, began_s = self._watch.changed, self._watch.address, self._now_s()
            try:
                if address:
                    async with aclosing(self._handed(inbox, address, changed)) as targets:
                        async for target in targets:
                            heard_s = self._now_s()
                            yield target
                    if not changed.is_set():
                        return
            except TradewindError as error:
                if reason_of(error) in _FINAL:
                    raise
            # A try that fails never takes so long: the leader was there.
            if changed.is_set() or self._now_s() - began_s > self._patience_s:
                heard_s = self._now_s()
            if self._now_s() - heard_s > self._patience_s:
                raise NotLeader(address)
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await changed.wait()

    async def _handed(self, inbox: Inbox, address: str, changed: asyncio.Event) -> AsyncGenerator[node_pb2.NodeTarget]:
        """Targets of the leader at an address until it ends the stream or another leads."""
        stub = node_pb2_grpc.NodeLinkServiceStub(await self._channel_to(address))
        call = stub.Connect(inbox.requests(), metadata=((HANDED_ON, "1"),))
        responses, moved = aiter(call), asyncio.ensure_future(changed.wait())
        reading = asyncio.ensure_future(anext(responses, None))
        self._handed_on(1)
        try:
            with translated("leading orchestrator"):
                while True:
                    await asyncio.wait({reading, moved}, return_when=asyncio.FIRST_COMPLETED)
                    if moved.done() or (response := reading.result()) is None:
                        return
                    yield response.target
                    reading = asyncio.ensure_future(anext(responses, None))
        finally:
            self._handed_on(-1)
            moved.cancel()
            call.cancel()
            await end_task(reading)

    async def _channel_to(self, address: str) -> grpc.aio.Channel:
        if self._channel is None or self._address != address:
            before = self._channel
            # At once, for many streams ask for it together.
            self._address, self._channel = address, open_channel(address, keepalive_ms=PING_MS)
            if before is not None:
                await before.close(None)
        return self._channel
