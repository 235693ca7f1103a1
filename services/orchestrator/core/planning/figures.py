"""What operating points draw and reach at a load, many at once, and how one of them is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy

from services.orchestrator.core.facts.explanation import Candidate, Refusal
from services.orchestrator.core.facts.wish import Metric, Slo
from services.orchestrator.core.planning.capacity import energies_per_token_mj, percentiles_ms
from services.orchestrator.core.planning.points import Point
from services.orchestrator.core.planning.stations import Stations, Vector


@dataclass(frozen=True, slots=True)
class Latencies:
    """Latencies at the SLO's percentiles in ms; 0 where they were not worked out."""

    ttft_ms: float = 0.0
    tpot_ms: float = 0.0
    e2e_ms: float = 0.0


NOT_TOLD = Latencies()


class Figures(NamedTuple):
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
    """Points that share a mean demand each: so many replicas of each, of this capacity."""

    requests_per_s: Vector
    points: Sequence[Point]
    stations: Stations
    replicas: Vector
    capacities: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Figures as columns, a row for each point: see `Figures`."""

    replicas: Vector
    capacities: Vector
    energies_mj: Vector
    active_mw: Vector
    power_mw: Vector
    prices_per_hour: Vector

    def rows(self, latencies: Iterable[Latencies]) -> list[Figures]:
        """As figures."""
        columns = (self.capacities, self.energies_mj, self.active_mw, self.power_mw, self.prices_per_hour)
        return list(
            map(Figures, self.replicas.astype(int).tolist(), *(column.tolist() for column in columns), latencies)
        )


def drawn(shares: Shares) -> Drawn:
    """What points draw when replicas share the demand; beyond their most, at their most."""
    stations, replicas, asked, points = shares.stations, shares.replicas, shares.requests_per_s, shares.points
    compared = numpy.minimum(asked / numpy.maximum(replicas, 1), stations.most_per_s)
    energies = energies_per_token_mj(stations, _met(asked, replicas, stations, shares.capacities))
    active = compared * stations.output_tokens * energies
    power = replicas * (active + numpy.array([point.idle_mw for point in points]))
    held = replicas * numpy.array([point.device_share for point in points])
    prices = held * numpy.array([point.device.price_per_hour for point in points])
    return Drawn(replicas, shares.capacities, energies, active, power, prices)


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
