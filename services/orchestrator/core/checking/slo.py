"""Part of the independent check: an SLO's figures worked out again from raw profiles, by other code than the planner's.

Same queueing model (it is stated in docs/orchestrator.md), own arithmetic: the probabilities of the chain come from
balancing logarithms, the normal distribution from the standard library, interpolation from a sorted table.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from statistics import NormalDist
from typing import Final

from services.orchestrator.core.facts.blueprint import Replica
from services.orchestrator.core.facts.fleet import DEFAULT_POWER, PowerSetting
from services.orchestrator.core.facts.profile import Load, Profile
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Deployment, Metric

# Two ways of computing a probability may differ by this much before it is a finding.
TOLERANCE: Final = 0.02
_NORMAL: Final = NormalDist()
_TAIL_STATES: Final = 400


def slo_findings(
    situation: Situation, wish: Deployment, replicas: tuple[Replica, ...], power: dict[tuple[str, str], PowerSetting]
) -> list[str]:
    """Limits of the SLO that the replicas do not keep at the wished demand.

    Args:
        power: settings that devices shall have, by node and device; one that is not here has its default.
    """
    findings: set[str] = set()
    parts = _parts(replicas)
    seen: set[object] = set()
    shelf = _Shelf(situation)
    for replica, part in zip(replicas, parts, strict=True):
        setting = power.get((replica.node_id, replica.partition.device_id), DEFAULT_POWER)
        alike = (replica.variant_id, replica.device_class, replica.partition.kind, replica.batch_limit, setting, part)
        if alike in seen:
            continue
        seen.add(alike)
        profile = shelf.profile(replica, setting)
        if profile is None:
            return [f"{replica.replica_id} runs where {replica.variant_id} was never profiled (power: {setting})"]
        findings.update(_quality(shelf, wish, replica))
        findings.update(_latency(wish, profile, replica, wish.demand.requests_per_s * part))
        findings.update(_energy(wish, profile, replica))
    return sorted(findings)


def least_active_mw(
    situation: Situation, wish: Deployment, replicas: tuple[Replica, ...], power: dict[tuple[str, str], PowerSetting]
) -> list[float]:
    """The least active power that each replica can have at its part of the demand, by its best measured load.

    Where replicas do not carry the demand each is at its capacity, no further.
    """
    shelf, found = _Shelf(situation), []
    for replica, part in zip(replicas, _parts(replicas), strict=True):
        setting = power.get((replica.node_id, replica.partition.device_id), DEFAULT_POWER)
        profile = shelf.profile(replica, setting)
        rate = wish.demand.mean_requests_per_s or wish.demand.requests_per_s
        most = replica.capacity_requests_per_s or math.inf
        tokens_per_s = min(rate * part, most) * max(wish.demand.output_tokens, 1)
        energies = [_token_energy(load, wish.demand.output_tokens) for load in profile.loads] if profile else [0.0]
        found.append(tokens_per_s * min(energies))
    return found


def _parts(replicas: tuple[Replica, ...]) -> list[float]:
    """Each replica's part of the requests: by its capacity, equal where none is given."""
    capacities = [replica.capacity_requests_per_s for replica in replicas]
    if not all(capacity > 0.0 for capacity in capacities):
        return [1.0 / len(replicas)] * len(replicas)
    return [capacity / sum(capacities) for capacity in capacities]


class _Shelf:
    """Variants and profiles by what they are asked for."""

    def __init__(self, situation: Situation) -> None:
        self.variants = {variant.variant_id: variant for variant in situation.catalog.variants}
        self._profiles: dict[tuple[str, str, str, PowerSetting], list[Profile]] = {}
        for found in situation.catalog.profiles:
            key = (found.variant_id, found.device_class, found.partition_kind, found.power)
            self._profiles.setdefault(key, []).append(found)

    def profile(self, replica: Replica, setting: PowerSetting) -> Profile | None:
        """The profile that the replica's figures come from."""
        key = (replica.variant_id, replica.device_class, replica.partition.kind, setting)
        fitting = [
            found
            for found in self._profiles.get(key, [])
            if found.batch_limit >= replica.batch_limit
            and any(load.concurrency == replica.batch_limit for load in found.loads)
        ]
        return min(fitting, key=lambda found: (found.batch_limit, found.profile_id), default=None)


def _quality(shelf: _Shelf, wish: Deployment, replica: Replica) -> list[str]:
    variant = shelf.variants.get(replica.variant_id)
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
    reader = _Reader(profile.loads, prompt)
    table = [_Row(reader, n, steps) for n in range(1, batch + 1)]
    if rate_per_s >= table[-1].completions_per_s:
        return [
            f"{replica.replica_id} gets {rate_per_s:.4g} requests/s, it completes {table[-1].completions_per_s:.4g}"
        ]
    present = _presence([row.completions_per_s for row in table], rate_per_s)
    findings = []
    for limit in wish.slo.latency:
        share = sum(
            p * q for p, q in zip(present, _met(table, limit.metric, limit.limit_ms, len(present)), strict=True)
        )
        if share < limit.percentile / 100.0 - TOLERANCE:
            findings.append(
                f"{replica.replica_id}: {limit.metric} within {limit.limit_ms:g} ms for {share:.1%} of requests, "
                f"{limit.percentile:g} % are asked for"
            )
    return findings


_FIELDS: Final = ("p50_ms", "p95_ms", "p99_ms", "mean_ms")


class _Reader:
    """Reads figures off a profile at one prompt length."""

    def __init__(self, loads: tuple[Load, ...], prompt: int) -> None:
        self._prompt = float(prompt)
        self._columns: dict[tuple[str, str], list[tuple[int, list[float], list[float]]]] = {}
        for metric in ("ttft", "tpot"):
            for field in _FIELDS:
                by_length: dict[int, list[tuple[int, float]]] = {}
                for load in loads:
                    value = float(getattr(getattr(load, metric), field))
                    by_length.setdefault(load.prompt_tokens, []).append((load.concurrency, value))
                self._columns[metric, field] = [
                    (length, [float(n) for n, _ in sorted(column)], [value for _, value in sorted(column)])
                    for length, column in sorted(by_length.items())
                ]

    def figure(self, metric: str, field: str, n: int) -> float:
        """A figure with n sequences: TTFT between numbers of sequences, TPOT of the next larger one."""
        lengths, values = [], []
        for length, numbers, column in self._columns[metric, field]:
            if numbers[-1] < n:
                continue
            lengths.append(float(length))
            if metric == "tpot":
                values.append(column[bisect_left(numbers, float(n))])
            else:
                values.append(_line(numbers, column, float(n)))
        return _line(lengths, values, self._prompt, grows=metric == "ttft")


class _Row:
    """Latencies with n sequences at work."""

    def __init__(self, reader: _Reader, n: int, steps: int) -> None:
        self.ttft = [reader.figure("ttft", field, n) for field in _FIELDS]
        self.tpot = [reader.figure("tpot", field, n) for field in _FIELDS]
        mean_s = (self.ttft[3] + steps * self.tpot[3]) / 1000.0
        self.completions_per_s = n / max(mean_s, 1e-9)
        self.e2e = [a + steps * b for a, b in zip(self.ttft, self.tpot, strict=True)]


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
    total = sum(weights)
    return [weight / total for weight in weights]


def _met(table: list[_Row], metric: Metric, limit_ms: float, states: int) -> list[float]:
    """Probabilities that an arrival keeps the limit, by how many requests it finds."""
    batch = len(table)
    met: list[float] = []
    for row in table:
        met.append(_lognormal({Metric.TTFT: row.ttft, Metric.TPOT: row.tpot, Metric.E2E: row.e2e}[metric], limit_ms))
    last = table[-1]
    if metric is Metric.TPOT:
        return (met + [met[-1]] * max(states - batch, 0))[:states]
    spare_s = (limit_ms - _p95(last.ttft if metric is Metric.TTFT else last.e2e)) / 1000.0
    if spare_s <= 0.0:
        return (met + [0.0] * max(states - batch, 0))[:states]
    mean, fewer = last.completions_per_s * spare_s, 0.0
    for departures in range(1, states - batch + 1):
        # At least so many departures in time is one less the chance of each smaller number.
        fewer += math.exp((departures - 1) * math.log(mean) - mean - math.lgamma(departures))
        met.append(max(1.0 - fewer, 0.0))
    return met[:states]


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
