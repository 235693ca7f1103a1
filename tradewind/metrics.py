"""Prometheus metrics: one registry for each service, made by its composition root and handed down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

# From a fast local call to a long compile.
SECONDS_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Registry:
    """Metrics of one service; every name gets the prefix "tradewind_"."""

    def __init__(self) -> None:
        self.collector = CollectorRegistry()

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """A counter; its name ends in _total."""
        return Counter(f"tradewind_{name}", text, labels, registry=self.collector)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """A gauge."""
        return Gauge(f"tradewind_{name}", text, labels, registry=self.collector)

    def histogram(
        self, name: str, text: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS_BUCKETS
    ) -> Histogram:
        """A histogram, in seconds unless other buckets are given."""
        return Histogram(f"tradewind_{name}", text, labels, registry=self.collector, buckets=buckets)

    def text(self) -> bytes:
        """All metrics in Prometheus' text form."""
        return generate_latest(self.collector)


def serve_metrics(registry: Registry, listen: str) -> Callable[[], None]:
    """Serves /metrics on "host:port" in a thread of its own; "" serves nothing. Returns what stops it.

    Raises:
        OSError: the port is taken.
    """
    if not listen:
        return lambda: None
    host, _, port = listen.rpartition(":")
    server, thread = start_http_server(int(port), addr=host or "0.0.0.0", registry=registry.collector)  # noqa: S104

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return stop
