"""Channels and calls of the client: deadlines on each call, gRPC's errors turned into TradewindError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import grpc

from tradewind.domain.errors import ServiceUnavailable
from tradewind.rpc.errors import from_rpc_error
from tradewind.rpc.limits import SHARED_OPTIONS

# Reads and writes of metadata. Placing a deployment plans first, which is the slowest of them.
CALL_LIMIT_S: Final = 30.0
# All pages of a list are read; more rows than this are no list for a person or a script of theirs.
MAX_ROWS: Final = 10_000
PAGE_SIZE: Final = 500


class Wire:
    """A channel to one service.

    Args:
        service: its name, for messages.
        address: "host:port" or "unix:/path".
    """

    def __init__(self, service: str, address: str) -> None:
        self.service, self.address = service, address
        options = [*SHARED_OPTIONS, ("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 1_000)]
        self.channel = grpc.insecure_channel(address, options=options)

    def call(self, method: Any, request: Any, limit_s: float = CALL_LIMIT_S) -> Any:
        """Calls a unary method.

        Raises:
            RemoteError: the service refused.
            ServiceUnavailable: it does not answer.
        """
        with self.errors():
            return method(request, timeout=limit_s)

    def pages(self, method: Any, request: Any, rows: str) -> list[Any]:
        """All rows of a paged list, at most `MAX_ROWS`."""
        found: list[Any] = []
        request.page_size = PAGE_SIZE
        while True:
            response = self.call(method, request)
            found.extend(getattr(response, rows))
            if not response.next_page_token or len(found) >= MAX_ROWS:
                return found
            request.page_token = response.next_page_token

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns errors of calls inside into TradewindError; one that never arrived names the address."""
        try:
            yield
        except grpc.RpcError as error:
            meant = from_rpc_error(cast(grpc.aio.AioRpcError, error), self.service)
            if isinstance(meant, ServiceUnavailable):
                meant = ServiceUnavailable(
                    f"the {self.service} does not answer at {self.address}",
                    {"service": self.service, "address": self.address},
                )
            raise meant from error

    def close(self) -> None:
        """Closes the channel."""
        self.channel.close()
