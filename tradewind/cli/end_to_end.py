"""Limits of end-to-end latency and how they were kept, for a person; says nothing of what has no such limit."""

from __future__ import annotations

from rich.text import Text

from tradewind.cli import words
from tradewind.domain.units import show_ms
from tradewind.v1 import common_pb2, orchestrator_pb2


def judged_by(slo: common_pb2.Slo) -> common_pb2.LatencyLimit | None:
    """The limit that requests are judged by: the one at the highest percentile; None without one."""
    limits = [limit for limit in slo.latency if limit.metric == common_pb2.LATENCY_METRIC_E2E]
    return max(limits, key=lambda limit: (limit.percentile, limit.limit_ms), default=None)


def kept_cell(deployment: orchestrator_pb2.Deployment) -> Text:
    """Share of requests that kept the limit, red when it is less than asked for; a dash when nothing was judged."""
    limit = judged_by(deployment.spec.slo)
    if limit is None or not deployment.HasField("e2e_attainment"):
        return Text("–")
    kept = deployment.e2e_attainment.kept
    return Text(words.percent(kept), style="red" if kept < limit.percentile / 100.0 else "")


def kept_lines(deployment: orchestrator_pb2.Deployment) -> list[Text]:
    """For instance "chat: E2E p95 ≤ 8.00 s kept by 96.2 % of 53 requests in 2 min"; no line without a limit."""
    limit = judged_by(deployment.spec.slo)
    if limit is None:
        return []
    head = f"{deployment.name}: E2E p{limit.percentile:g} ≤ {show_ms(limit.limit_ms)} "
    if not deployment.HasField("e2e_attainment"):
        return [Text(f"{head}not judged: no request ended in 2 min", style="dim")]
    requests = deployment.e2e_attainment.requests
    return [Text.assemble(f"{head}kept by ", kept_cell(deployment), f" of {requests} requests in 2 min")]
