"""An SLO in a line, as a person would say it."""

from __future__ import annotations

from tradewind.domain.units import show_mj, show_ms, show_mw
from tradewind.v1 import common_pb2


def slo_words(slo: common_pb2.Slo) -> str:
    """For instance "TTFT p95 ≤ 300 ms, TPOT p95 ≤ 40 ms, ≤ 500 mJ/token"; "none" when empty."""
    parts = [f"{_metric(limit.metric)} p{limit.percentile:g} ≤ {show_ms(limit.limit_ms)}" for limit in slo.latency]
    if slo.HasField("energy_per_token_mj"):
        parts.append(f"≤ {show_mj(slo.energy_per_token_mj)}/token")
    if slo.HasField("power_mw"):
        parts.append(f"≤ {show_mw(slo.power_mw)}")
    if slo.HasField("min_top1_agreement"):
        parts.append(f"quality ≥ {slo.min_top1_agreement:g}")
    if slo.HasField("max_perplexity_increase"):
        parts.append(f"perplexity ≤ +{slo.max_perplexity_increase:.1%}")
    if slo.HasField("availability"):
        parts.append(f"available ≥ {slo.availability:g}")
    return ", ".join(parts) or "none"


def _metric(metric: common_pb2.LatencyMetric.ValueType) -> str:
    return common_pb2.LatencyMetric.Name(metric).removeprefix("LATENCY_METRIC_")
