"""What came of a run, as figures with units. Everything is simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from services.orchestrator.core.facts.wish import Demand
from services.simulator.engine.meter import Sample
from services.simulator.engine.request import Request
from services.simulator.engine.spent import Energy


@dataclass(frozen=True, slots=True)
class Percentiles:
    """A distribution in seconds."""

    p50_s: float
    p95_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy over one trace; figures count from `from_s` of the trace on.

    Attributes:
        attainment: share of requests that were answered whole within every limit.
        ttft_attainment, tpot_attainment, e2e_attainment: within one of them.
        lost: requests without an answer; must be 0.
        cut: streams broken by a crash of their node.
        refused: requests for which no replica had room; none of them is within the SLO.
        changes: blueprints committed.
        started: replicas loaded.
        demand: what was provisioned for, or where an adaptive policy began.
        e2e: time from arrival to the last token.
        done_s: when the last answer was whole, on the trace's clock.
    """

    policy: str
    from_s: float
    to_s: float
    requests: int
    output_tokens: int
    attainment: float
    ttft_attainment: float
    tpot_attainment: float
    ttft: Percentiles
    tpot: Percentiles
    energy: Energy
    lost: int
    cut: int
    changes: int
    started: int
    findings: tuple[str, ...]
    digest: str
    samples: tuple[Sample, ...] = ()
    journal: tuple[dict[str, Any], ...] = ()
    demand: Demand = field(default_factory=Demand)
    e2e: Percentiles = Percentiles(0.0, 0.0, 0.0)
    done_s: float = 0.0
    e2e_attainment: float = 1.0
    refused: int = 0

    @property
    def energy_per_token_mj(self) -> float:
        """Of a generated token, idle and changes included."""
        return self.energy.total_j * 1000.0 / max(self.output_tokens, 1)

    @property
    def mean_power_w(self) -> float:
        """Of all devices."""
        return self.energy.total_j / max(self.to_s - self.from_s, 1e-9)


def shares(
    requests: Sequence[Request], ttft_s: float, tpot_s: float, e2e_s: float
) -> tuple[float, float, float, float]:
    """Attainment of all limits, of TTFT's, of TPOT's, of the end-to-end one; an infinite limit is none."""
    count = max(len(requests), 1)
    whole = [r for r in requests if r.whole]
    every = sum(r.within(ttft_s, tpot_s, e2e_s) for r in whole)
    first = sum(r.ttft_s <= ttft_s for r in whole)
    later = sum(r.tpot_s <= tpot_s for r in whole)
    last = sum(r.e2e_s <= e2e_s for r in whole)
    return every / count, first / count, later / count, last / count


def percentiles(values: Sequence[float]) -> Percentiles:
    """Nearest-rank percentiles; zeros of nothing."""
    ordered = sorted(values)
    if not ordered:
        return Percentiles(0.0, 0.0, 0.0)

    def at(share: float) -> float:
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    return Percentiles(at(0.5), at(0.95), at(0.99))
