"""Where the orchestrators are: several addresses, any of which serves. One that does not reach the leader names it.

Connections of the link are pinged more often than others: a leader that is paused, not dead, keeps its sockets open,
and its node must not wait for it while another leads.
"""

from __future__ import annotations

from typing import Final

import grpc

from tradewind.domain.errors import TradewindError, reason_of
from tradewind.rpc.client import open_channel
from tradewind.v1 import node_pb2_grpc

# A leader that answers no ping within twice this is left; its lease has run out by then, too.
PING_MS: Final = 3_000
NOT_LEADER: Final = "NOT_LEADER"


class Orchestrators:
    """The orchestrator to talk to now.

    Args:
        addresses: "host:port", one or several, separated by commas.
    """

    def __init__(self, addresses: str) -> None:
        self._addresses = [address.strip() for address in addresses.split(",") if address.strip()]
        self._turn = 0
        self._hint = ""
        self._address = ""
        self._channel: grpc.aio.Channel | None = None

    @property
    def address(self) -> str:
        """Who is talked to next."""
        return self._hint or self._addresses[self._turn % len(self._addresses)]

    async def stub(self) -> node_pb2_grpc.NodeLinkServiceAsyncStub:
        """A stub of it; the channel to another is closed."""
        if self._channel is None or self._address != self.address:
            await self.close()
            self._address = self.address
            self._channel = open_channel(self._address, keepalive_ms=PING_MS)
        return node_pb2_grpc.NodeLinkServiceStub(self._channel)

    def failed(self, error: TradewindError) -> bool:
        """Chooses whom to try next; whether that is a leader just named, which is worth trying at once."""
        named = error.metadata.get("leader", "") if reason_of(error) == NOT_LEADER else ""
        if named and named != self._address:
            self._hint = named
            return True
        self._next()
        return False

    def ended(self) -> None:
        """The stream ended in order: who led does no more."""
        self._next()

    async def close(self) -> None:
        """Closes the channel. Idempotent."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close(None)

    def _next(self) -> None:
        if self._hint:
            # The hint did not help: back to the list, where it was left.
            self._hint = ""
        else:
            self._turn += 1
