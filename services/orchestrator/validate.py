"""Refuses requests that make no sense, field by field, before anything is looked up or planned. Pure."""

from __future__ import annotations

import math
import re
from typing import Final

from tradewind.domain.errors import InvalidField
from tradewind.v1 import common_pb2, orchestrator_pb2

# A day: whatever takes longer is no interactive request.
MOST_MS: Final = 86_400_000.0
# Far above what any fleet that is planned exhaustively can serve; a larger number is a slip of the pen.
MOST_REQUESTS_PER_S: Final = 100_000.0
MOST_TOKENS: Final = 10_000_000
MOST_REPLICAS: Final = 1_000
MOST_LIMITS: Final = 32
MOST_LABELS: Final = 32
# As many failure domains as a plan tells apart.
MOST_DOMAINS: Final = 32
MOST_TEXT: Final = 256
# A link for each kind of device there is, and some to spare.
MOST_LINKS: Final = 16
# Gateways hold a request for a sleeping deployment no longer.
MOST_COLD_START_S: Final = 180.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def check_name(name: str) -> None:
    """Refuses a deployment name that is none.

    Raises:
        InvalidField: so for every function here.
    """
    if not _NAME.fullmatch(name):
        raise InvalidField(
            "name", f"{name[:80]!r} is no name; use 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first"
        )


def check_spec(spec: orchestrator_pb2.DeploymentSpec) -> None:
    """Refuses a wish that makes no sense."""
    if not spec.model or len(spec.model) > MOST_TEXT:
        raise InvalidField("spec.model", "the name or id of a model is needed, see `tradewind model list`")
    if spec.objective not in common_pb2.Objective.values():
        raise InvalidField("spec.objective", f"{spec.objective} is none of energy, latency, cost")
    _check_chain(spec)
    _check_slo(spec.slo)
    _check_spread(spec)
    _check_demand(spec.demand)
    for field in ("min_replicas", "max_replicas"):
        if getattr(spec, field) > MOST_REPLICAS:
            raise InvalidField(
                f"spec.{field}", f"{getattr(spec, field)} replicas; at most {MOST_REPLICAS} are possible"
            )
    if spec.max_replicas and spec.min_replicas > spec.max_replicas:
        raise InvalidField(
            "spec.min_replicas",
            f"at least {spec.min_replicas} and at most {spec.max_replicas} replicas cannot both hold",
        )
    _check_sleep(spec)
    if len(spec.node_selector) > MOST_LABELS:
        raise InvalidField("spec.node_selector", f"at most {MOST_LABELS} labels are possible")
    for key, value in spec.node_selector.items():
        if not key or len(key) > MOST_TEXT or len(value) > MOST_TEXT:
            raise InvalidField("spec.node_selector", f"labels have 1 to {MOST_TEXT} characters")


def _check_chain(spec: orchestrator_pb2.DeploymentSpec) -> None:
    links = list(spec.chain_variant_ids)
    if links and spec.pinned_variant_id:
        raise InvalidField("spec.chain_variant_ids", "a pinned variant and a chain cannot both hold; drop one")
    if len(links) > MOST_LINKS:
        raise InvalidField("spec.chain_variant_ids", f"{len(links)} links; at most {MOST_LINKS} are possible")
    if len(set(links)) != len(links):
        raise InvalidField("spec.chain_variant_ids", "a variant is in the chain twice; keep the first")


def _check_spread(spec: orchestrator_pb2.DeploymentSpec) -> None:
    if len(spec.trust_level) > MOST_TEXT:
        raise InvalidField("spec.trust_level", f"at most {MOST_TEXT} characters are possible")
    if not spec.HasField("spread"):
        return
    domains = spec.spread.domains
    if not 2 <= domains <= MOST_DOMAINS:
        raise InvalidField("spec.spread.domains", f"{domains} is not between 2 and {MOST_DOMAINS}")
    if spec.max_replicas and spec.max_replicas < domains:
        raise InvalidField(
            "spec.spread.domains", f"{domains} domains need as many replicas, at most {spec.max_replicas} are allowed"
        )


def _check_sleep(spec: orchestrator_pb2.DeploymentSpec) -> None:
    if not 0.0 <= spec.cold_start_s <= MOST_COLD_START_S:
        raise InvalidField(
            "spec.cold_start_s", f"{spec.cold_start_s:g} s is not between 0 (any) and {MOST_COLD_START_S:g} s"
        )
    if spec.cold_start_s and not spec.scale_to_zero:
        raise InvalidField("spec.cold_start_s", "it only matters with scale_to_zero; set that, or leave it out")
    if spec.scale_to_zero and spec.min_replicas:
        raise InvalidField(
            "spec.scale_to_zero", f"at least {spec.min_replicas} replicas and none at all cannot both hold; drop one"
        )


def check_scope(scope: str) -> tuple[str, str]:
    """Refuses a power budget's scope that is none; node and device it names ("" for none)."""
    parts = scope.split("/", 2)
    if parts == ["site"]:
        return "", ""
    if parts[0] == "node" and len(parts) == 2 and parts[1]:
        return parts[1], ""
    if parts[0] == "device" and len(parts) == 3 and parts[1] and parts[2]:
        return parts[1], parts[2]
    raise InvalidField("scope", f"{scope[:80]!r} is none of 'site', 'node/NODE_ID', 'device/NODE_ID/DEVICE_ID'")


def _check_slo(slo: common_pb2.Slo) -> None:
    if len(slo.latency) > MOST_LIMITS:
        raise InvalidField("spec.slo.latency", f"{len(slo.latency)} limits; at most {MOST_LIMITS} are possible")
    seen: dict[tuple[int, float], float] = {}
    for index, limit in enumerate(slo.latency):
        field = f"spec.slo.latency[{index}]"
        if limit.metric not in (
            common_pb2.LATENCY_METRIC_TTFT,
            common_pb2.LATENCY_METRIC_TPOT,
            common_pb2.LATENCY_METRIC_E2E,
        ):
            raise InvalidField(f"{field}.metric", "one of TTFT, TPOT, E2E is needed")
        if not 0.0 < limit.percentile < 100.0:
            raise InvalidField(f"{field}.percentile", f"{limit.percentile:g} is not between 0 and 100, for instance 95")
        if not 0.0 < limit.limit_ms <= MOST_MS:
            raise InvalidField(
                f"{field}.limit_ms", f"{limit.limit_ms:g} ms is not above 0 and at most a day ({MOST_MS:g} ms)"
            )
        key = (limit.metric, limit.percentile)
        if key in seen:
            raise InvalidField(field, f"{_metric(limit.metric)} p{limit.percentile:g} is limited twice; keep one")
        seen[key] = limit.limit_ms
    _check_contradictions(seen)
    for field in ("energy_per_token_mj", "power_mw"):
        if slo.HasField(field) and not (0.0 < getattr(slo, field) < math.inf):  # type: ignore[arg-type]
            raise InvalidField(f"spec.slo.{field}", f"{getattr(slo, field):g} is not above 0")
    if slo.HasField("min_top1_agreement") and not 0.0 <= slo.min_top1_agreement <= 1.0:
        raise InvalidField("spec.slo.min_top1_agreement", f"{slo.min_top1_agreement:g} is not between 0 and 1")
    if slo.HasField("max_perplexity_increase") and not 0.0 <= slo.max_perplexity_increase < math.inf:
        raise InvalidField("spec.slo.max_perplexity_increase", f"{slo.max_perplexity_increase:g} is not 0 or above")
    if slo.HasField("availability") and not 0.0 <= slo.availability < 1.0:
        raise InvalidField("spec.slo.availability", f"{slo.availability:g} is not at least 0 and below 1")


def _check_contradictions(limits: dict[tuple[int, float], float]) -> None:
    for (metric, percentile), limit in sorted(limits.items()):
        for (other_metric, other_percentile), other in sorted(limits.items()):
            if metric == other_metric and other_percentile > percentile and other < limit:
                raise InvalidField(
                    "spec.slo.latency",
                    f"{_metric(metric)} p{other_percentile:g} ≤ {other:g} ms contradicts p{percentile:g} ≤ {limit:g} ms"
                    ": a higher percentile is never lower; drop one",
                )
    ttft = {p: v for (m, p), v in limits.items() if m == common_pb2.LATENCY_METRIC_TTFT}
    for (metric, percentile), e2e in sorted(limits.items()):
        if metric == common_pb2.LATENCY_METRIC_E2E and ttft.get(percentile, 0.0) > e2e:
            raise InvalidField(
                "spec.slo.latency",
                f"TTFT p{percentile:g} ≤ {ttft[percentile]:g} ms is above E2E p{percentile:g} ≤ {e2e:g} ms: the first "
                "token cannot come after the last; lower TTFT or raise E2E",
            )


def _check_demand(demand: common_pb2.Demand) -> None:
    rate = demand.requests_per_s
    if not 0.0 <= rate <= MOST_REQUESTS_PER_S:
        raise InvalidField("spec.demand.requests_per_s", f"{rate:g} is not between 0 and {MOST_REQUESTS_PER_S:g}")
    mean = demand.mean_requests_per_s
    if not 0.0 <= mean <= MOST_REQUESTS_PER_S or (rate > 0.0 and mean > rate):
        raise InvalidField("spec.demand.mean_requests_per_s", f"{mean:g} is not between 0 and requests_per_s, {rate:g}")
    for typical in ("prompt_tokens", "output_tokens"):
        p95 = getattr(demand, f"{typical}_p95")
        if p95 and p95 < getattr(demand, typical):
            raise InvalidField(f"spec.demand.{typical}_p95", f"{p95} is below the typical {getattr(demand, typical)}")
    for field in ("prompt_tokens", "output_tokens", "prompt_tokens_p95", "output_tokens_p95"):
        if getattr(demand, field) > MOST_TOKENS:
            raise InvalidField(
                f"spec.demand.{field}", f"{getattr(demand, field)} tokens; at most {MOST_TOKENS} make sense"
            )


def _metric(metric: int) -> str:
    return common_pb2.LatencyMetric.Name(metric).removeprefix("LATENCY_METRIC_")  # type: ignore[arg-type]
