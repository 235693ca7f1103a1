"""Weighs operating points against a deployment's SLO: what each reaches, what it draws, or the limit it breaks.

Power of an option is the active power of the demand (energy per token × tokens a second) plus, for each replica, the
share of its device's idle power that it holds and what a loaded replica adds to idle. The share is shown and held
against a power limit, and is no reason to choose: a device that is on draws its idle power whatever its cores do, so
the energy objective makes least of active power and what being loaded adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.facts.explanation import Candidate, Refusal
from services.orchestrator.core.facts.profile import Profile
from services.orchestrator.core.facts.wish import Deployment, LatencyLimit, Metric, Objective
from services.orchestrator.core.planning.capacity import (
    Station,
    broken_limit,
    capacity_at,
    energy_per_token_mj,
    percentile_ms,
    station_of,
)
from services.orchestrator.core.planning.ground import Base
from services.orchestrator.core.planning.points import Point
from tradewind.domain.figures import FigureSource

# A single replica is ready this share of the time: a crash an hour, with about half a minute to load again.
SINGLE_AVAILABILITY: Final = 0.99
# Above this share of the limit a figure is the limit, for comparison of floating numbers.
_SLACK: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Option:
    """A point that keeps the SLO.

    Attributes:
        candidate: figures at the planned load, for the explanation.
        replicas: what the demand takes when every replica is of this point.
        capacity: requests a second that one replica takes.
        active_mw: active power of one replica at its share of the demand.
        cost: what the objective makes least of, in its own unit, of all replicas.
        service_s: mean time of a request when the batch is full.
        short: why it cannot do alone and may only take part; empty when it can.
    """

    point: Point
    candidate: Candidate
    replicas: int
    capacity: float
    active_mw: float
    power_mw: float
    cost: float
    service_s: float
    short: str = ""

    @property
    def base(self) -> Base:
        """Variant, device class, partition kind, batch limit: what a running replica is compared by."""
        profile = self.point.profile
        return (self.point.variant.variant_id, profile.device_class, profile.partition_kind, self.point.batch_limit)

    @property
    def key(self) -> tuple[str, str, str, int, tuple[int, int]]:
        """The base with its power setting."""
        return (*self.base, self.point.profile.power.order)


def weigh(deployment: Deployment, point: Point) -> Option | Candidate:
    """An option, or the candidate refused by the first limit that it breaks."""
    if reason := quality_reason(deployment, point):
        return point.candidate(Refusal.QUALITY_FLOOR, reason)
    station = station_of(point.profile, deployment.demand, point.batch_limit)
    broken = broken_limit(station, deployment.slo.latency, 0.0)
    if broken:
        shown = _latencies(deployment, station, figures(deployment, point, station, 1, 0.0), 0.0)
        return replace(shown, refusal=Refusal(f"{broken.metric}_LIMIT"), reason=_broken(station, broken))
    capacity = capacity_at(point.profile, deployment.demand, point.batch_limit, deployment.slo.latency)
    wanted = replicas_wanted(deployment, capacity)
    most = most_replicas(deployment, point)
    rate = deployment.demand.requests_per_s
    if wanted <= most:
        shown = figures(deployment, point, station, wanted, capacity)
        return _against_energy(deployment, shown) or _option(deployment, point, station, shown)
    limit = "the wish allows" if deployment.max_replicas and most == deployment.max_replicas else "the nodes take"
    need = f"{wanted} replicas would be needed for {rate:.4g} requests/s at {capacity:.4g} each"
    short = f"{need}, {limit} at most {most}"
    shown = figures(deployment, point, station, wanted, capacity)
    if refused := _against_energy(replace(deployment, slo=replace(deployment.slo, power_mw=None)), shown):
        return refused
    return replace(_option(deployment, point, station, shown), short=short)


def quality_reason(deployment: Deployment, point: Point) -> str:
    """Why the variant's quality is below the SLO's floor; empty when it is not."""
    slo, variant = deployment.slo, point.variant
    if slo.min_top1_agreement is not None:
        if variant.top1_agreement is None:
            return f"at least {slo.min_top1_agreement:.4g} top-1 agreement is asked for, its own was never checked"
        if variant.top1_agreement < slo.min_top1_agreement:
            return f"top-1 agreement {variant.top1_agreement:.4f}, at least {slo.min_top1_agreement:.4g} is asked for"
    if slo.max_perplexity_increase is not None:
        if variant.perplexity_increase is None:
            return "a limit of perplexity increase is asked for, its own was never checked"
        if variant.perplexity_increase > slo.max_perplexity_increase:
            most = slo.max_perplexity_increase
            return f"perplexity increase {variant.perplexity_increase:.4f}, at most {most:.4g} is asked for"
    return ""


def replicas_needed(deployment: Deployment) -> int:
    """Replicas for the wish's minimum, its availability (replicas fail independently) and its failure domains."""
    count = max(deployment.min_replicas, 1, deployment.spread.domains if deployment.spread else 1)
    availability = deployment.slo.availability
    if availability is not None:
        while 1.0 - (1.0 - SINGLE_AVAILABILITY) ** count < availability - _SLACK:
            count += 1
    return count


def replicas_wanted(deployment: Deployment, capacity_requests_per_s: float) -> int:
    """Replicas that the wish needs, of this capacity each."""
    count, rate = replicas_needed(deployment), deployment.demand.requests_per_s
    return max(count, math.ceil(rate / capacity_requests_per_s - _SLACK)) if rate > 0.0 else count


def most_replicas(deployment: Deployment, point: Point) -> int:
    """Replicas that the wish and the nodes allow."""
    return min(point.places, deployment.max_replicas or point.places)


def with_latencies(deployment: Deployment, option: Option, shown: Candidate) -> Candidate:
    """A candidate of an option with the latencies that it reaches; they are only worked out for what is told."""
    if shown.e2e_ms > 0.0:
        return shown
    station = station_of(option.point.profile, deployment.demand, option.point.batch_limit)
    each = min(deployment.demand.requests_per_s / max(shown.replicas, 1), station.most_per_s)
    return _latencies(deployment, station, shown, each)


def _latencies(deployment: Deployment, station: Station, shown: Candidate, each_per_s: float) -> Candidate:
    slo = deployment.slo
    return replace(
        shown,
        ttft_ms=percentile_ms(station, Metric.TTFT, slo.percentile_of(Metric.TTFT), each_per_s),
        tpot_ms=percentile_ms(station, Metric.TPOT, slo.percentile_of(Metric.TPOT), each_per_s),
        e2e_ms=percentile_ms(station, Metric.E2E, slo.percentile_of(Metric.E2E), each_per_s),
    )


def figures(deployment: Deployment, point: Point, station: Station, replicas: int, capacity: float) -> Candidate:
    """What the point draws when so many replicas share the demand; beyond their most, at their most.

    Latencies are there when they decide or cost nothing: for the latency objective, and without demand.
    """
    demand = deployment.demand
    each = min(demand.requests_per_s / max(replicas, 1), station.most_per_s)
    compared = min(demand.compared_requests_per_s / max(replicas, 1), station.most_per_s)
    energy = energy_per_token_mj(station, each)
    active = compared * station.output_tokens * energy
    source, method = _energy_source(point.profile)
    shown = point.candidate()
    if deployment.objective is Objective.LATENCY or each <= 0.0:
        shown = _latencies(deployment, station, shown, each)
    return replace(
        shown,
        energy_per_token_mj=energy,
        energy_source=source,
        energy_method=method,
        replicas=replicas,
        capacity_requests_per_s=capacity,
        power_mw=replicas * (active + idle_mw(point)),
        price_per_hour=replicas * point.device_share * point.device.price_per_hour,
    )


def idle_mw(point: Point) -> float:
    """Idle power charged to one replica: its share of the device's, and what being loaded adds."""
    device_idle = point.device.idle_power_mw
    added = max(point.profile.idle_power_mw - device_idle, 0.0) if point.profile.idle_power_mw else 0.0
    return device_idle * point.device_share + added


def _against_energy(deployment: Deployment, shown: Candidate) -> Candidate | None:
    slo = deployment.slo
    if slo.energy_per_token_mj is not None and shown.energy_per_token_mj > slo.energy_per_token_mj * (1 + _SLACK):
        reason = f"{shown.energy_per_token_mj:.4g} mJ a token, at most {slo.energy_per_token_mj:.4g} mJ is asked for"
        return replace(shown, refusal=Refusal.ENERGY_LIMIT, reason=reason)
    if slo.power_mw is not None and shown.power_mw > slo.power_mw * (1 + _SLACK):
        reason = f"{shown.power_mw:.4g} mW with its share of idle, at most {slo.power_mw:.4g} mW is asked for"
        return replace(shown, refusal=Refusal.POWER_LIMIT, reason=reason)
    return None


def _option(deployment: Deployment, point: Point, station: Station, shown: Candidate) -> Option:
    held_mw = point.device.idle_power_mw * point.device_share
    cost = {
        Objective.ENERGY: shown.power_mw - shown.replicas * held_mw,
        Objective.LATENCY: shown.e2e_ms,
        # Without a price every device costs the same, so least money is the least share of devices held.
        Objective.COST: shown.replicas * point.device_share * (point.device.price_per_hour or 1.0),
    }[deployment.objective]
    active = shown.power_mw / shown.replicas - idle_mw(point)
    service_s = point.batch_limit / float(station.rates_per_s[-1])
    return Option(point, shown, shown.replicas, shown.capacity_requests_per_s, active, shown.power_mw, cost, service_s)


def _broken(station: Station, limit: LatencyLimit) -> str:
    reached = percentile_ms(station, limit.metric, limit.percentile, 0.0)
    return (
        f"{limit.metric} p{limit.percentile:g} is {reached:.4g} ms with a single request, "
        f"at most {limit.limit_ms:.4g} ms is asked for"
    )


def _energy_source(profile: Profile) -> tuple[FigureSource, str]:
    """The weakest source of the loads, with its method: a rate between measured loads is no better than they are."""
    worst = max(profile.loads, key=lambda load: (load.energy_source, load.energy_method))
    return worst.energy_source, worst.energy_method
