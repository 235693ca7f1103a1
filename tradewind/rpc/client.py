"""Channels to other services. A channel connects by itself, again and again; calls carry deadlines of their own."""

from __future__ import annotations

import json
from typing import Final

import grpc

from tradewind.rpc.limits import SHARED_OPTIONS

# The first retry after a lost connection comes within this time, so that a restarted service is found again at once.
_RECONNECT: Final = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 2_000))
# Reads only: methods whose names say that they change nothing may be sent again by gRPC itself.
_RETRY: Final = {
    "methodConfig": [
        {
            "name": [{}],
            "waitForReady": False,
        }
    ]
}


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to "host:port" or "unix:/path/of.sock". Close it with `await channel.close()`."""
    options = [
        *SHARED_OPTIONS,
        *_RECONNECT,
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.service_config", json.dumps(_RETRY)),
        ("grpc.enable_http_proxy", 0),
    ]
    return grpc.aio.insecure_channel(address, options=options)
