"""Channels to node agents, one for each address, kept while the routing table names it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection

import grpc

from services.gateway.limits import CONNECT_WAIT_S, IDLE_CHANNELS
from tradewind.domain.errors import ServiceUnavailable
from tradewind.rpc.client import open_channel
from tradewind.v1 import inference_pb2_grpc


class Channels:
    """Opens a channel at first use and closes the ones used longest ago when too many are idle."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, grpc.aio.Channel] = OrderedDict()

    async def stub(self, address: str) -> inference_pb2_grpc.InferenceServiceAsyncStub:
        """The inference service at an address, connected.

        Raises:
            ServiceUnavailable: nobody is there, or nobody answers; gRPC by itself would wait until the deadline.
        """
        if address not in self._open:
            self._open[address] = open_channel(address)
        self._open.move_to_end(address)
        channel = self._open[address]
        try:
            async with asyncio.timeout(CONNECT_WAIT_S):
                await _connect(channel)
        except TimeoutError as error:
            raise ServiceUnavailable(
                f"the node at {address} does not answer within {CONNECT_WAIT_S:.0f} s", {"service": address}
            ) from error
        return inference_pb2_grpc.InferenceServiceStub(channel)

    async def prune(self, needed: Collection[str]) -> None:
        """Closes idle channels beyond `IDLE_CHANNELS`.

        Args:
            needed: addresses of the routing table or with requests at work; never closed.
        """
        idle = [address for address in self._open if address not in needed]
        for address in idle[: max(len(idle) - IDLE_CHANNELS, 0)]:
            await self._open.pop(address).close(None)

    async def close(self) -> None:
        """Closes all; calls at work end as cancelled."""
        while self._open:
            await self._open.popitem()[1].close(None)


async def _connect(channel: grpc.aio.Channel) -> None:
    """Returns when a channel is connected, or has just failed and so would a call."""
    settled = (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE)
    while (state := channel.get_state(try_to_connect=True)) not in settled:
        await channel.wait_for_state_change(state)
