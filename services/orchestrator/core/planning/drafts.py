"""Reports on their way: the latencies of what they tell are worked out for all of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy

from services.orchestrator.core.facts.explanation import Candidate, Explanation
from services.orchestrator.core.facts.loads import Sheaf
from services.orchestrator.core.facts.wish import Deployment, Metric
from services.orchestrator.core.planning.capacity import percentiles_ms
from services.orchestrator.core.planning.points import Point
from services.orchestrator.core.planning.stations import Stations, side_by_side, stations_of

# Options that are told with latencies, beside those chosen: the best of them; working them out takes most of a report.
MOST_LATENCIES: Final = 6
_METRICS: Final = (Metric.TTFT, Metric.TPOT, Metric.E2E)

Candidates = tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """A report without latencies.

    Attributes:
        placed: what is chosen, each option with its share of the demand.
        lines: other options, best first.
        points: of the options, by key.
        sheaves: in which all profiles of the points are.
        write: makes the report of `placed` and `lines` with latencies.
    """

    deployment: Deployment
    placed: Candidates
    lines: Candidates
    points: dict[tuple[object, ...], Point]
    sheaves: tuple[Sheaf, ...]
    write: Callable[[Candidates, Candidates], Explanation]

    @property
    def told(self) -> list[tuple[int, Candidate]]:
        """Candidates whose latencies are to be worked out, with their numbers among all."""
        first = enumerate((*self.placed, *self.lines[:MOST_LATENCIES]))
        return [(number, one) for number, one in first if one.key in self.points and one.e2e_ms <= 0.0]

    def rate_of(self, number: int, one: Candidate) -> float:
        """Requests a second that a replica of a candidate gets."""
        rate = self.deployment.demand.requests_per_s
        if number >= len(self.placed) or len(self.placed) == 1:
            return rate / max(one.replicas, 1)
        return rate * one.capacity_requests_per_s / sum(p.capacity_requests_per_s * p.replicas for p in self.placed)


def write_all(drafts: Sequence[Draft]) -> tuple[Explanation, ...]:
    """The reports, with latencies."""
    asked = [(draft, draft.told) for draft in drafts]
    wanted = [(draft, told) for draft, told in asked if told]
    reached = iter(_latencies([(draft, told) for draft, told in wanted])) if wanted else iter(())
    found = []
    for draft, told in asked:
        shown = [*draft.placed, *draft.lines]
        for number, one in told:
            ttft_ms, tpot_ms, e2e_ms = next(reached)
            shown[number] = replace(one, ttft_ms=ttft_ms, tpot_ms=tpot_ms, e2e_ms=e2e_ms)
        count = len(draft.placed)
        found.append(draft.write(tuple(shown[:count]), tuple(shown[count:])))
    return tuple(found)


def _latencies(wanted: list[tuple[Draft, list[tuple[int, Candidate]]]]) -> list[tuple[float, ...]]:
    """TTFT, TPOT and latency to the last token in ms of all candidates, at the percentiles of their SLOs."""
    parts, rates, counts = list[Stations](), list[float](), list[int]()
    for draft, told in wanted:
        points = [draft.points[one.key] for _, one in told]
        batches = [point.batch_limit for point in points]
        parts.append(stations_of([p.profile for p in points], batches, draft.deployment.demand, draft.sheaves))
        rates += [draft.rate_of(number, one) for number, one in told]
        counts.append(len(told))
    stations = side_by_side(parts)
    slos = [draft.deployment.slo for draft, _ in wanted]
    percents = [(m, numpy.repeat([slo.percentile_of(m) for slo in slos], counts)) for m in _METRICS]
    columns = percentiles_ms(stations, percents, numpy.minimum(rates, stations.most_per_s))
    return list(zip(*(column.tolist() for column in columns), strict=True))
