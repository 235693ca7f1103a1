"""What operating points draw and reach at a load, many at once, and how one of them is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from services.orchestrator.core.facts.explanation import Candidate, Refusal
from services.orchestrator.core.facts.wish import Metric, Slo
from services.orchestrator.core.planning.capacity import energies_per_token_mj, percentiles_ms
from services.orchestrator.core.planning.points import Point
from services.orchestrator.core.planning.stations import Stations, Vector, side_by_side


@dataclass(frozen=True, slots=True)
class Latencies:
    """Latencies at the SLO's percentiles in ms; 0 where they were not worked out."""

    ttft_ms: float = 0.0
    tpot_ms: float = 0.0
    e2e_ms: float = 0.0


NOT_TOLD = Latencies()


@dataclass(frozen=True, slots=True)
class Figures:
    """A point at its share of the demand: so many replicas, of this capacity each.

    Attributes:
        active_mw: active power of one replica.
        power_mw: of all replicas, with their share of idle power.
    """

    replicas: int
    capacity: float
    energy_per_token_mj: float
    active_mw: float
    power_mw: float
    price_per_hour: float
    latencies: Latencies = NOT_TOLD


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Points that share a mean demand: so many replicas of each, of this capacity.

    Attributes:
        requests_per_s: the mean demand, one for all points or one for each.
        latencies: of each point, when they are worked out.
    """

    requests_per_s: float | Vector
    points: Sequence[Point]
    stations: Stations
    replicas: Vector
    capacities: Vector
    latencies: Sequence[Latencies] = ()


def figures_of(shares: Sequence[Shares]) -> list[list[Figures]]:
    """What points draw when replicas share the demand; beyond their most, at their most."""
    if not shares:
        return []
    counts = [len(share.points) for share in shares]
    stations = side_by_side([share.stations for share in shares])
    replicas = numpy.concatenate([share.replicas for share in shares])
    capacities = numpy.concatenate([share.capacities for share in shares])
    asked = numpy.concatenate([numpy.full(n, s.requests_per_s) for n, s in zip(counts, shares, strict=True)])
    compared = numpy.minimum(asked / numpy.maximum(replicas, 1), stations.most_per_s)
    energies = energies_per_token_mj(stations, _met(asked, replicas, stations, capacities))
    active = compared * stations.output_tokens * energies
    columns = [column.tolist() for column in (replicas.astype(int), capacities, energies, active)]
    found, begin = [], 0
    for share in shares:
        end = begin + len(share.points)
        latencies = share.latencies or [NOT_TOLD] * len(share.points)
        rows = zip(share.points, *(column[begin:end] for column in columns), latencies, strict=True)
        found.append([_figures(*row) for row in rows])
        begin = end
    return found


def _figures(
    point: Point, count: int, capacity: float, energy_mj: float, active_mw: float, latencies: Latencies
) -> Figures:
    power_mw = count * (active_mw + point.idle_mw)
    price = count * point.device_share * point.device.price_per_hour
    return Figures(count, capacity, energy_mj, active_mw, power_mw, price, latencies)


def _met(rates_per_s: Vector, replicas: Vector, stations: Stations, capacities: Vector) -> Vector:
    """The rate that a replica at work meets: the mean demand on as few as take it, for one is filled after the other.

    What is provisioned for is the rate of bursts; a variant that is thrifty in their batches may not be in those of
    every day.
    """
    few = numpy.ceil(rates_per_s / numpy.where(capacities > 0.0, capacities, numpy.inf))
    met: Vector = numpy.minimum(rates_per_s / numpy.clip(few, 1.0, numpy.maximum(replicas, 1)), stations.most_per_s)
    return met


def latencies_of(slo: Slo, stations: Stations, rates_per_s: Vector) -> list[Latencies]:
    """Latencies of stations at the SLO's percentiles."""
    wanted = [(metric, slo.percentile_of(metric)) for metric in (Metric.TTFT, Metric.TPOT, Metric.E2E)]
    columns = percentiles_ms(stations, wanted, rates_per_s)
    return [Latencies(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def told(
    point: Point, shown: Figures | None, refusal: Refusal | None = None, reason: str = "", alike: int = 1
) -> Candidate:
    """A point as a line of the explanation, which may stand for others like it."""
    if shown is None:
        return point.candidate(refusal, reason, alike)
    source, method = point.energy_source
    profile = point.profile
    return Candidate(
        variant_id=point.variant.variant_id,
        variant_name=point.variant.name,
        device_class=profile.device_class,
        partition_kind=profile.partition_kind,
        batch_limit=point.batch_limit,
        power=profile.power,
        refusal=refusal or "",
        reason=reason,
        memory_bytes=point.memory_bytes,
        ttft_ms=shown.latencies.ttft_ms,
        tpot_ms=shown.latencies.tpot_ms,
        e2e_ms=shown.latencies.e2e_ms,
        energy_per_token_mj=shown.energy_per_token_mj,
        energy_source=source,
        energy_method=method,
        replicas=shown.replicas,
        capacity_requests_per_s=shown.capacity,
        power_mw=shown.power_mw,
        price_per_hour=shown.price_per_hour,
        alike=alike,
    )
