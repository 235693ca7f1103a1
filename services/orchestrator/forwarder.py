"""Hands a follower's writes on to the leader, with the caller's deadline, so that any orchestrator may be asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import grpc

from tradewind.domain.errors import NotLeader
from tradewind.rpc.client import open_channel
from tradewind.rpc.errors import translated
from tradewind.v1 import orchestrator_pb2_grpc

# Says that a call was handed on once: two orchestrators that each think the other leads must not play ball.
HANDED_ON: Final = "tradewind-handed-on"
# What is left of a deadline for the way back.
WAY_BACK_S: Final = 0.2


class Forwarder:
    """Calls the leader.

    Args:
        leader: its address as known now, "" when not known.
    """

    def __init__(self, leader: Callable[[], str]) -> None:
        self._leader = leader
        self._address = ""
        self._channel: grpc.aio.Channel | None = None

    async def forward(self, method: str, request: Any, context: Any) -> Any:
        """The leader's answer, or its error.

        Raises:
            NotLeader: there is no leader, or the call was handed on already.
            ServiceUnavailable: the leader does not answer.
        """
        address = self._leader()
        metadata = dict(context.invocation_metadata() or ())
        if not address or HANDED_ON in metadata:
            raise NotLeader(address)
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(await self._channel_to(address))
        timeout_s = max(context.time_remaining() - WAY_BACK_S, WAY_BACK_S)
        with translated("leading orchestrator"):
            return await getattr(stub, method)(request, timeout=timeout_s, metadata=((HANDED_ON, "1"),))

    async def close(self) -> None:
        """Closes the channel."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def _channel_to(self, address: str) -> grpc.aio.Channel:
        if self._channel is None or self._address != address:
            await self.close()
            self._channel, self._address = open_channel(address), address
        return self._channel
