"""The gateway's metrics, for Prometheus and for the status page. Counts, knows nothing of HTTP or gRPC."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, quantiles
from typing import Final

from services.gateway.limits import MAX_METRIC_DEPLOYMENTS, RECENT_REQUESTS, RECENT_S
from services.gateway.traffic import TrafficCount
from tradewind.metrics import Registry
from tradewind.v1 import common_pb2, inference_pb2

# From a token on a fast GPU to a long prompt on a slow CPU.
_LATENCY_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30)
# From a tensor on a GPU to the longest answer that a request may take.
_END_TO_END_BUCKETS_S: Final = (0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300)
_OTHER: Final = "(other)"


@dataclass(frozen=True, slots=True)
class Finished:
    """A generation that reached its end.

    Attributes:
        ttft_s: arrival to first token, in seconds.
        tpot_s: mean time of an output token after the first; None when there was none.
        e2e_s: arrival to last token, in seconds.
    """

    deployment: str
    variant_name: str
    usage: inference_pb2.Usage
    ttft_s: float
    tpot_s: float | None
    e2e_s: float


@dataclass(frozen=True, slots=True)
class RecentFigures:
    """Means and percentiles over the last minute; None where nothing was seen."""

    requests: int
    output_tokens: int
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None
    tpot_p50_ms: float | None
    tpot_p95_ms: float | None
    e2e_p50_ms: float | None
    e2e_p95_ms: float | None
    energy_per_token_mj: float | None
    energy_source: str


class GatewayMetrics:
    """Counts what happens.

    Args:
        registry: of this service.
        is_deployment: whether a name is deployed; others share a label, so that clients cannot make labels up.
        traffic: told the same, for the orchestrator.
    """

    def __init__(self, registry: Registry, is_deployment: Callable[[str], bool], traffic: TrafficCount) -> None:
        self._is_deployment, self._traffic = is_deployment, traffic
        self._requests = registry.counter(
            "gateway_requests_total", "Requests ended", ("interface", "deployment", "code")
        )
        self._in_flight = registry.gauge("gateway_requests_in_flight", "Requests at work", ("deployment",))
        self._retries = registry.counter(
            "gateway_retries_total", "Requests sent to another replica", ("deployment", "reason")
        )
        self._ttft = registry.histogram(
            "gateway_ttft_seconds", "Arrival to first token", ("deployment",), _LATENCY_BUCKETS_S
        )
        self._tpot = registry.histogram(
            "gateway_tpot_seconds", "Time per output token after the first", ("deployment",), _LATENCY_BUCKETS_S
        )
        self._e2e = registry.histogram(
            "gateway_e2e_seconds", "Arrival to last token", ("deployment",), _END_TO_END_BUCKETS_S
        )
        self._tokens = registry.counter("gateway_tokens_total", "Tokens", ("deployment", "kind"))
        self._energy = registry.counter(
            "gateway_energy_millijoules_total", "Energy of finished requests", ("deployment", "source")
        )
        self._labels: OrderedDict[str, None] = OrderedDict()
        self._recent: dict[str, deque[tuple[float, Finished]]] = {}
        self._at_work: Counter[str] = Counter()

    def begun(self, deployment: str) -> None:
        """A generation is asked for."""
        self._at_work[self._label(deployment)] += 1
        self._in_flight.labels(self._label(deployment)).inc()

    def asked(self, deployment: str, prompt_tokens: int) -> None:
        """The prompt of a generation that `begun` counted is known."""
        self._traffic.arrived(deployment, prompt_tokens)

    def ended(self, interface: str, deployment: str, code: str) -> None:
        """A generation that `begun` counted is over: code "OK", "CANCELLED" or an error's reason."""
        label = self._label(deployment)
        self._at_work[label] -= 1
        self._in_flight.labels(label).dec()
        self._requests.labels(interface, label, code).inc()
        self._traffic.ended(deployment, code)

    def retried(self, deployment: str, reason: str) -> None:
        """A replica refused before its first token."""
        self._retries.labels(self._label(deployment), reason).inc()

    def finished(self, done: Finished) -> None:
        """A generation reached its end."""
        label, usage = self._label(done.deployment), done.usage
        self._traffic.finished(done.deployment, done.ttft_s, done.tpot_s, done.e2e_s, usage.output_tokens)
        self._ttft.labels(label).observe(done.ttft_s)
        if done.tpot_s is not None:
            self._tpot.labels(label).observe(done.tpot_s)
        self._e2e.labels(label).observe(done.e2e_s)
        self._tokens.labels(label, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(label, "output").inc(usage.output_tokens)
        self._energy.labels(label, source_label(usage.energy.source)).inc(max(usage.energy.energy_mj, 0.0))
        self._recent.setdefault(label, deque(maxlen=RECENT_REQUESTS)).append((time.monotonic(), done))

    def at_work(self, deployment: str) -> int:
        """Generations at work now."""
        return self._at_work[self._label(deployment)]

    def recent(self, deployment: str) -> RecentFigures:
        """What the last minute's requests saw."""
        since_s = time.monotonic() - RECENT_S
        done = [entry for at_s, entry in self._recent.get(self._label(deployment), ()) if at_s >= since_s]
        ttft = [entry.ttft_s * 1e3 for entry in done]
        tpot = [entry.tpot_s * 1e3 for entry in done if entry.tpot_s is not None]
        e2e = [entry.e2e_s * 1e3 for entry in done]
        known = [e.usage for e in done if source_label(e.usage.energy.source) != "unavailable"]
        tokens = sum(usage.output_tokens for usage in known)
        # A sum takes the weakest label of its parts, that is the highest number.
        weakest = max((usage.energy.source for usage in known), default=common_pb2.FIGURE_SOURCE_UNAVAILABLE)
        return RecentFigures(
            requests=len(done),
            output_tokens=sum(entry.usage.output_tokens for entry in done),
            ttft_p50_ms=_percentile(ttft, 50),
            ttft_p95_ms=_percentile(ttft, 95),
            tpot_p50_ms=_percentile(tpot, 50),
            tpot_p95_ms=_percentile(tpot, 95),
            e2e_p50_ms=_percentile(e2e, 50),
            e2e_p95_ms=_percentile(e2e, 95),
            energy_per_token_mj=sum(usage.energy.energy_mj for usage in known) / tokens if tokens else None,
            energy_source=source_label(weakest),
        )

    def _label(self, deployment: str) -> str:
        if deployment in self._labels:
            return deployment
        if not self._is_deployment(deployment) or len(self._labels) >= MAX_METRIC_DEPLOYMENTS:
            return _OTHER
        self._labels[deployment] = None
        return deployment


def source_label(source: common_pb2.FigureSource.ValueType) -> str:
    """The label as people and JSON see it, for instance "measured_counter"; an unset one is "unavailable"."""
    if source == common_pb2.FIGURE_SOURCE_UNSPECIFIED or source not in common_pb2.FigureSource.values():
        # Not set, or newer than this software.
        return "unavailable"
    return common_pb2.FigureSource.Name(source).removeprefix("FIGURE_SOURCE_").lower()


def _percentile(values: list[float], percent: int) -> float | None:
    if len(values) < 2:
        return fmean(values) if values else None
    return quantiles(values, n=100, method="inclusive")[percent - 1]
