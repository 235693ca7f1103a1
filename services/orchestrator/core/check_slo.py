"""Part of the independent check: an SLO's figures worked out again from raw profiles, by other code than the planner's.

Same queueing model (it is stated in docs/orchestrator.md), own arithmetic: the probabilities of the chain come from
balancing logarithms, the normal distribution from the standard library, interpolation from a sorted table.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from statistics import NormalDist
from typing import Final

from services.orchestrator.core.blueprint import Blueprint, Replica
from services.orchestrator.core.fleet import PowerSetting
from services.orchestrator.core.profile import Load, Profile
from services.orchestrator.core.situation import Situation
from services.orchestrator.core.wish import Deployment, Metric

# Two ways of computing a probability may differ by this much before it is a finding.
TOLERANCE: Final = 0.02
_NORMAL: Final = NormalDist()
_TAIL_STATES: Final = 400


def slo_findings(situation: Situation, blueprint: Blueprint, wish: Deployment) -> list[str]:
    """Limits of the SLO that a deployment's replicas do not keep at the wished demand.

    Replicas share the demand in the proportion that the blueprint gives them, and run at its power settings.
    """
    findings, replicas = [], blueprint.of(wish.deployment_id)
    weights = [r.capacity_requests_per_s for r in replicas]
    known = all(weight > 0.0 for weight in weights)
    for replica in replicas:
        share = replica.capacity_requests_per_s / sum(weights) if known else 1.0 / len(replicas)
        power = blueprint.power_of(replica.node_id, replica.partition.device_id)
        profile = _profile(situation, replica, power)
        if profile is None:
            return [f"{replica.replica_id} runs where {replica.variant_id} was never profiled"]
        findings += _quality(situation, wish, replica)
        findings += _latency(wish, profile, replica, wish.demand.requests_per_s * share)
        findings += _energy(wish, profile, replica)
    return sorted(set(findings))


def _profile(situation: Situation, replica: Replica, power: PowerSetting) -> Profile | None:
    fitting = [
        p
        for p in situation.catalog.profiles
        if p.variant_id == replica.variant_id
        and p.device_class == replica.device_class
        and p.partition_kind == replica.partition.kind
        and p.power == power
        and any(load.concurrency == replica.batch_limit for load in p.loads)
        and p.batch_limit >= replica.batch_limit
    ]
    return min(fitting, key=lambda p: (p.batch_limit, p.profile_id), default=None)


def _quality(situation: Situation, wish: Deployment, replica: Replica) -> list[str]:
    variant = next((v for v in situation.catalog.variants if v.variant_id == replica.variant_id), None)
    if variant is None:
        return [f"{replica.variant_id} is not known"]
    floor, ceiling, findings = wish.slo.min_top1_agreement, wish.slo.max_perplexity_increase, []
    if floor is not None and not (variant.top1_agreement is not None and variant.top1_agreement >= floor):
        findings.append(f"{variant.name} keeps {variant.top1_agreement} of top-1 tokens, {floor} is the floor")
    increase = variant.perplexity_increase
    if ceiling is not None and not (increase is not None and increase <= ceiling):
        findings.append(f"{variant.name} raises perplexity by {increase}, {ceiling} is the most")
    return findings


def _energy(wish: Deployment, profile: Profile, replica: Replica) -> list[str]:
    """A necessary condition: some measured load is within the limit."""
    limit = wish.slo.energy_per_token_mj
    if limit is None:
        return []
    least = min(_token_energy(load, wish.demand.output_tokens) for load in profile.loads)
    if least > limit * (1.0 + TOLERANCE):
        return [f"{replica.replica_id} draws at least {least:.4g} mJ a token, {limit:.4g} is the most"]
    return []


def _token_energy(load: Load, output_tokens: int) -> float:
    if load.energy_per_prefill_mj <= 0 or load.output_tokens <= 0:
        return load.energy_per_token_mj
    whole = max(load.energy_per_token_mj * load.output_tokens - load.energy_per_prefill_mj, 0.0)
    return whole / load.output_tokens + load.energy_per_prefill_mj / max(output_tokens, 1)


def _latency(wish: Deployment, profile: Profile, replica: Replica, rate_per_s: float) -> list[str]:
    batch, prompt = replica.batch_limit, wish.demand.prompt_tokens
    steps = max(wish.demand.output_tokens - 1, 0)
    table = [_Row(profile, prompt, n, steps) for n in range(1, batch + 1)]
    if rate_per_s >= table[-1].completions_per_s:
        return [
            f"{replica.replica_id} gets {rate_per_s:.4g} requests/s, it completes {table[-1].completions_per_s:.4g}"
        ]
    present = _presence([row.completions_per_s for row in table], rate_per_s)
    findings = []
    for limit in wish.slo.latency:
        share = sum(p * _met(table, n, limit.metric, limit.limit_ms) for n, p in enumerate(present))
        if share < limit.percentile / 100.0 - TOLERANCE:
            findings.append(
                f"{replica.replica_id}: {limit.metric} within {limit.limit_ms:g} ms for {share:.1%} of requests, "
                f"{limit.percentile:g} % are asked for"
            )
    return findings


class _Row:
    """Latencies with n sequences at work, read off the profile."""

    def __init__(self, profile: Profile, prompt: int, n: int, steps: int) -> None:
        self.ttft = [_read(profile.loads, prompt, n, "ttft", field) for field in _FIELDS]
        self.tpot = [_read(profile.loads, prompt, n, "tpot", field) for field in _FIELDS]
        mean_s = (self.ttft[3] + steps * self.tpot[3]) / 1000.0
        self.completions_per_s = n / max(mean_s, 1e-9)
        self.e2e = [a + steps * b for a, b in zip(self.ttft, self.tpot, strict=True)]


_FIELDS: Final = ("p50_ms", "p95_ms", "p99_ms", "mean_ms")


def _read(loads: tuple[Load, ...], prompt: int, n: int, metric: str, field: str) -> float:
    """A figure at a prompt length and n sequences: TTFT between numbers of sequences, TPOT of the next larger one."""
    lengths, values = [], []
    for length in sorted({load.prompt_tokens for load in loads}):
        here = [load for load in loads if load.prompt_tokens == length]
        column = sorted((load.concurrency, float(getattr(getattr(load, metric), field))) for load in here)
        if column[-1][0] < n:
            continue
        lengths.append(float(length))
        if metric == "tpot":
            values.append(next(value for count, value in column if count >= n))
        else:
            values.append(_line([float(count) for count, _ in column], [value for _, value in column], float(n)))
    return _line(lengths, values, float(prompt), grows=metric == "ttft")


def _line(xs: list[float], ys: list[float], x: float, *, grows: bool = True) -> float:
    """Piecewise linear; flat on the left, the last slope (never falling) on the right, in proportion to one point."""
    if x <= xs[0]:
        return ys[0]
    if len(xs) == 1:
        return ys[0] * (x / xs[0]) if grows else ys[0]
    right = min(max(bisect_left(xs, x), 1), len(xs) - 1)
    slope = (ys[right] - ys[right - 1]) / (xs[right] - xs[right - 1])
    value = ys[right - 1] + slope * (x - xs[right - 1])
    return max(value, ys[-1]) if x > xs[-1] else value


def _presence(completions: list[float], rate: float) -> list[float]:
    if rate <= 0:
        return [1.0]
    logs = [0.0]
    for n in range(1, len(completions) + _TAIL_STATES):
        logs.append(logs[-1] + math.log(rate) - math.log(completions[min(n, len(completions)) - 1]))
    top = max(logs)
    weights = [math.exp(value - top) for value in logs]
    return [weight / sum(weights) for weight in weights]


def _met(table: list[_Row], present: int, metric: Metric, limit_ms: float) -> float:
    """Probability that an arrival that finds so many requests keeps the limit."""
    batch = len(table)
    row = table[min(present, batch - 1)]
    values = {Metric.TTFT: row.ttft, Metric.TPOT: row.tpot, Metric.E2E: row.e2e}[metric]
    if present < batch or metric is Metric.TPOT:
        return _lognormal(values, limit_ms)
    spare_s = (limit_ms - _p95(values)) / 1000.0
    departures = present - batch + 1
    return _erlang(departures, row.completions_per_s, spare_s) if spare_s > 0 else 0.0


def _width(values: list[float]) -> float:
    p50, p95, p99, _ = values
    return max(math.log(max(p95 / p50, 1.0)) / 1.6449, math.log(max(p99 / p50, 1.0)) / 2.3263)


def _p95(values: list[float]) -> float:
    return values[0] * math.exp(1.6449 * _width(values)) if values[0] > 0 else values[3]


def _lognormal(values: list[float], limit_ms: float) -> float:
    if values[0] <= 0:
        return 1.0
    width = _width(values)
    if width == 0:
        return 1.0 if values[0] <= limit_ms else 0.0
    return _NORMAL.cdf(math.log(limit_ms / values[0]) / width)


def _erlang(shape: int, rate: float, t: float) -> float:
    mean = rate * t
    return 1.0 - sum(math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) for i in range(shape))
