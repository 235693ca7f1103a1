"""Reports on their way: what is told is worked out for all of them side by side, and what is not told is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy

from services.orchestrator.core.facts.explanation import Candidate, Explanation, Refusal
from services.orchestrator.core.facts.loads import Sheaf
from services.orchestrator.core.facts.wish import Deployment, Metric
from services.orchestrator.core.planning.capacity import percentiles_ms
from services.orchestrator.core.planning.figures import NOT_TOLD, Figures, Latencies, Shares, drawn, told
from services.orchestrator.core.planning.points import Point, PointKey
from services.orchestrator.core.planning.stations import Served, Stations, Vector, stations_together
from services.orchestrator.core.planning.weigh import Option

# Options that are told with latencies, beside those chosen: the best of them; working them out takes most of a report.
MOST_LATENCIES: Final = 6
_METRICS: Final = (Metric.TTFT, Metric.TPOT, Metric.E2E)

Candidates = tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """Replicas of an option that were chosen, and the share of the wish's demand that they take."""

    option: Option
    replicas: int
    part: float

    @property
    def is_whole(self) -> bool:
        """Whether the figures of the option are those of what was chosen."""
        return self.part == 1.0 and self.replicas == self.option.replicas


@dataclass(frozen=True, slots=True)
class Draft:
    """A report of which figures are still to be worked out.

    Attributes:
        placed: what is chosen.
        lines: other options, best first.
        points: of the options.
        slow: points that are too slow, which are told with figures of a single request.
        sheaves: in which all profiles of the points are.
        write: makes the report of lines with figures: of what is chosen, and of other options.
    """

    deployment: Deployment
    placed: tuple[Placed, ...]
    lines: Candidates
    points: dict[PointKey, Point]
    slow: dict[PointKey, Point]
    sheaves: tuple[Sheaf, ...]
    write: Callable[[Candidates, Candidates], Explanation]


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of which something is to be worked out.

    Attributes:
        number: of the line, what is chosen counted first.
        shown: its figures, None when they are to be worked out.
        mean_per_s: mean demand that its replicas share.
        rate_per_s: what each replica is provisioned for.
    """

    number: int
    point: Point
    shown: Figures | None
    replicas: int
    capacity: float
    mean_per_s: float
    rate_per_s: float


def write_all(drafts: Sequence[Draft]) -> tuple[Explanation, ...]:
    """The reports, with figures and latencies."""
    asked = [(draft, [*_chosen(draft), *_others(draft), *_slow(draft)]) for draft in drafts]
    wanted = [(draft, rows) for draft, rows in asked if rows]
    reached = iter(_reached(wanted) if wanted else ())
    found = []
    for draft, rows in asked:
        shown = [*(placed.option.candidate for placed in draft.placed), *draft.lines]
        for row in rows:
            one, figures = shown[row.number], next(reached)
            refusal = Refusal(one.refusal) if one.refusal else None
            shown[row.number] = told(row.point, figures, refusal, one.reason, one.alike)
        count = len(draft.placed)
        found.append(draft.write(tuple(shown[:count]), tuple(shown[count:])))
    return tuple(found)


def _chosen(draft: Draft) -> list[_Row]:
    demand, total = draft.deployment.demand, sum(one.option.capacity * one.replicas for one in draft.placed)
    rows = []
    for number, one in enumerate(draft.placed):
        option = one.option
        if one.is_whole and option.shown.latencies.e2e_ms > 0.0:
            continue
        alone = len(draft.placed) == 1
        rate = demand.requests_per_s / one.replicas if alone else demand.requests_per_s * option.capacity / total
        mean = demand.compared_requests_per_s * one.part
        shown = option.shown if one.is_whole else None
        rows.append(_Row(number, option.point, shown, one.replicas, option.capacity, mean, rate))
    return rows


def _others(draft: Draft) -> list[_Row]:
    rate, first, rows = draft.deployment.demand.requests_per_s, len(draft.placed), []
    for number, one in enumerate(draft.lines[:MOST_LATENCIES], first):
        point = draft.points.get(one.key)
        if point is not None and one.e2e_ms <= 0.0:
            shown = Figures(
                one.replicas,
                one.capacity_requests_per_s,
                one.energy_per_token_mj,
                0.0,
                one.power_mw,
                one.price_per_hour,
            )
            capacity, each = one.capacity_requests_per_s, rate / max(one.replicas, 1)
            rows.append(_Row(number, point, shown, one.replicas, capacity, 0.0, each))
    return rows


def _slow(draft: Draft) -> list[_Row]:
    """A single request on one replica; energies are compared at the mean demand."""
    mean, first = draft.deployment.demand.compared_requests_per_s, len(draft.placed)
    found = ((number, draft.slow.get(one.key)) for number, one in enumerate(draft.lines, first) if one.refusal)
    return [_Row(number, point, None, 1, 0.0, mean, 0.0) for number, point in found if point is not None]


def _reached(wanted: list[tuple[Draft, list[_Row]]]) -> list[Figures]:
    """Figures of all rows, with latencies at the percentiles of their SLOs."""
    served = []
    for draft, rows in wanted:
        profiles, batches = [row.point.profile for row in rows], [row.point.batch_limit for row in rows]
        served.append(Served(profiles, batches, draft.deployment.demand, draft.sheaves))
    stations, rows = stations_together(served), [row for _, mine in wanted for row in mine]
    counts = [len(mine) for _, mine in wanted]
    slos = [draft.deployment.slo for draft, _ in wanted]
    percents = [numpy.repeat([slo.percentile_of(metric) for slo in slos], counts) for metric in _METRICS]
    latencies = _latencies(stations, percents, numpy.array([row.rate_per_s for row in rows]))
    new = numpy.flatnonzero([row.shown is None for row in rows])
    worked_out = iter(_figures(stations.take(new), [rows[number] for number in new.tolist()]))
    return [(row.shown or next(worked_out))._replace(latencies=mine) for row, mine in zip(rows, latencies, strict=True)]


def _figures(stations: Stations, rows: list[_Row]) -> list[Figures]:
    if not rows:
        return []
    means, counts, capacities = (
        numpy.array(column, dtype=float)
        for column in zip(*((row.mean_per_s, row.replicas, row.capacity) for row in rows), strict=True)
    )
    shares = Shares(means, [row.point for row in rows], stations, counts, capacities)
    return drawn(shares).rows([NOT_TOLD] * len(rows))


def _latencies(stations: Stations, percents: list[Vector], rates_per_s: Vector) -> list[Latencies]:
    """TTFT, TPOT and latency to the last token; those of single requests need no search."""
    found = numpy.zeros((len(stations), len(_METRICS)))
    for rows in (numpy.flatnonzero(rates_per_s > 0.0), numpy.flatnonzero(rates_per_s <= 0.0)):
        if rows.size:
            some = stations.take(rows)
            wanted = [(metric, percent[rows]) for metric, percent in zip(_METRICS, percents, strict=True)]
            columns = percentiles_ms(some, wanted, numpy.minimum(rates_per_s[rows], some.most_per_s))
            found[rows] = numpy.stack(columns, axis=1)
    return [Latencies(*values) for values in found.tolist()]
