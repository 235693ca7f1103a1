"""Channels to other services. A channel connects by itself, again and again; calls carry deadlines of their own."""

from __future__ import annotations

import json
from typing import Final

import grpc

from tradewind.rpc.limits import KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS, SHARED_OPTIONS

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


def open_channel(address: str, *, keepalive_ms: int = KEEPALIVE_MS) -> grpc.aio.Channel:
    """A channel to "host:port" or "unix:/path/of.sock". Close it with `await channel.close()`.

    Args:
        keepalive_ms: time between pings; a peer that answers none within as much again (at most
            `KEEPALIVE_TIMEOUT_MS`) is given up.
    """
    keepalive = (
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", min(keepalive_ms, KEEPALIVE_TIMEOUT_MS)),
        ("grpc.http2.ping_timeout_ms", min(keepalive_ms, KEEPALIVE_TIMEOUT_MS)),
        # Of both timeouts gRPC 1.8x waits for the longer one, which is a minute by default.
        # Without it gRPC holds pings back while nothing is sent.
        ("grpc.http2.max_pings_without_data", 0),
        # A paused peer's kernel still accepts connections; the handshake gets no longer than a ping.
        ("grpc.min_reconnect_backoff_ms", keepalive_ms),
    )
    options = [
        *(option for option in SHARED_OPTIONS if not option[0].startswith("grpc.keepalive")),
        *keepalive,
        *_RECONNECT,
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.service_config", json.dumps(_RETRY)),
        ("grpc.enable_http_proxy", 0),
    ]
    return grpc.aio.insecure_channel(address, options=options)
