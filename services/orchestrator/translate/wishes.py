"""Deployments and SLOs: contract ⇄ core."""

from __future__ import annotations

from typing import Final

from services.orchestrator.core.facts.wish import (
    DEFAULT_OUTPUT_TOKENS,
    DEFAULT_PROMPT_TOKENS,
    Demand,
    Deployment,
    LatencyLimit,
    Metric,
    Objective,
    Slo,
    Spread,
)
from tradewind.v1 import common_pb2, orchestrator_pb2

_METRICS: Final = {
    common_pb2.LATENCY_METRIC_TTFT: Metric.TTFT,
    common_pb2.LATENCY_METRIC_TPOT: Metric.TPOT,
    common_pb2.LATENCY_METRIC_E2E: Metric.E2E,
}
_OBJECTIVES: Final = {
    common_pb2.OBJECTIVE_UNSPECIFIED: Objective.ENERGY,
    common_pb2.OBJECTIVE_ENERGY: Objective.ENERGY,
    common_pb2.OBJECTIVE_LATENCY: Objective.LATENCY,
    common_pb2.OBJECTIVE_COST: Objective.COST,
}


def wish_of(
    deployment_id: str, name: str, generation: int, spec: orchestrator_pb2.DeploymentSpec, model_id: str
) -> Deployment:
    """A validated spec as a wish."""
    return Deployment(
        deployment_id=deployment_id,
        name=name,
        model_id=model_id,
        slo=slo_of(spec.slo),
        objective=_OBJECTIVES[spec.objective],
        demand=Demand(
            spec.demand.requests_per_s,
            spec.demand.prompt_tokens or DEFAULT_PROMPT_TOKENS,
            spec.demand.output_tokens or DEFAULT_OUTPUT_TOKENS,
            spec.demand.mean_requests_per_s,
            spec.demand.prompt_tokens_p95,
            spec.demand.output_tokens_p95,
        ),
        pinned_variant_id=spec.pinned_variant_id,
        min_replicas=spec.min_replicas or 1,
        max_replicas=spec.max_replicas,
        node_selector=tuple(sorted(spec.node_selector.items())),
        generation=generation,
        scale_to_zero=spec.scale_to_zero,
        cold_start_s=spec.cold_start_s,
        spread=Spread(spec.spread.label or "rack", spec.spread.domains) if spec.HasField("spread") else None,
        trust_level=spec.trust_level,
        chain=tuple(spec.chain_variant_ids),
    )


def slo_of(slo: common_pb2.Slo) -> Slo:
    """A validated SLO."""

    def given(field: str) -> float | None:
        return float(getattr(slo, field)) if slo.HasField(field) else None  # type: ignore[arg-type]

    return Slo(
        latency=tuple(LatencyLimit(_METRICS[limit.metric], limit.percentile, limit.limit_ms) for limit in slo.latency),
        energy_per_token_mj=given("energy_per_token_mj"),
        power_mw=given("power_mw"),
        min_top1_agreement=given("min_top1_agreement"),
        max_perplexity_increase=given("max_perplexity_increase"),
        availability=given("availability"),
    )


def slo_message(slo: Slo) -> common_pb2.Slo:
    """An SLO as sent."""
    metrics = {metric: number for number, metric in _METRICS.items()}
    return common_pb2.Slo(
        latency=[
            common_pb2.LatencyLimit(metric=metrics[limit.metric], percentile=limit.percentile, limit_ms=limit.limit_ms)
            for limit in slo.latency
        ],
        energy_per_token_mj=slo.energy_per_token_mj,
        power_mw=slo.power_mw,
        min_top1_agreement=slo.min_top1_agreement,
        max_perplexity_increase=slo.max_perplexity_increase,
        availability=slo.availability,
    )
