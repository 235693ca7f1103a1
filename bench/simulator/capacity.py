"""What the planner says that a replica takes within its SLO, and what a simulated one keeps. Simulated.

`python -m bench.simulator.capacity TRACES DEVICE_TABLES [WORKLOAD …]`: one replica of each operating point at the
default clock on a whole board, requests with the lengths of each workload in random order, Poisson arrivals. *Kept* is
the greatest rate at which every limit holds at its percentile, found by bisection over the same random draws.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Final

from services.orchestrator.core.planning.capacity import capacities_per_s
from services.orchestrator.core.planning.stations import station_of
from services.simulator.catalogue import catalog_of, cost_of, menu_of
from services.simulator.cluster import parse_cluster
from services.simulator.engine.cost import StepCost
from services.simulator.engine.replica import Replica
from services.simulator.engine.request import Request
from services.simulator.matrix import MIXED, WORKLOADS, Workload, load
from services.simulator.run import Limits, demand_of
from services.simulator.trace import Trace

# Enough for a percentile of 99 to stand within some per cent in rate.
_REQUESTS: Final = 12_000
# Rates are bisected to this factor.
_FACTOR: Final = 1.02
# Steps of this factor from the planned rate until both sides are known; below this part of it nothing is kept.
_STEP: Final = 1.5
_FARTHEST: Final = 50.0
_BATCHES: Final = (1, 4, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Draw:
    """Requests in random order, and gaps between them in units of the mean gap."""

    gaps: tuple[float, ...]
    prompts: tuple[int, ...]
    outputs: tuple[int, ...]


def drawn(trace: Trace, seed: int) -> Draw:
    """Lengths of a trace, drawn with replacement, and exponential gaps."""
    draw = random.Random(seed)
    picks = [draw.randrange(len(trace)) for _ in range(_REQUESTS)]
    return Draw(
        tuple(draw.expovariate(1.0) for _ in picks),
        tuple(trace.prompt_tokens[i] for i in picks),
        tuple(trace.output_tokens[i] for i in picks),
    )


def missed(replica: Replica, draw: Draw, rate_per_s: float, limits: Limits) -> tuple[float, float]:
    """Shares of requests beyond the limit of TTFT and of TPOT."""
    requests, now_s = list[Request](), 0.0
    for number, (gap, prompt, output) in enumerate(zip(draw.gaps, draw.prompts, draw.outputs, strict=True)):
        now_s += gap / rate_per_s
        requests.append(Request(number, now_s, prompt, output))
    for request in requests:
        while replica.ends_at_s < request.arrival_s:
            replica.advance(replica.ends_at_s)
        replica.submit(request, request.arrival_s)
    while replica.in_hand:
        replica.advance(replica.ends_at_s)
    late = sum(r.ttft_s > limits.ttft_s for r in requests)
    slow = sum(r.tpot_s > limits.tpot_s for r in requests)
    return late / len(requests), slow / len(requests)


def kept_per_s(cost: StepCost, batch: int, draw: Draw, limits: Limits, guess: float) -> float:
    """The greatest rate at which both limits hold at their percentile; 0 when there is none."""
    allowed = 1.0 - limits.percentile / 100.0

    def holds(rate: float) -> bool:
        return max(missed(Replica("r", cost, batch), draw, rate, limits)) <= allowed

    low = high = guess
    while not holds(low):
        low, high = low / _STEP, low
        if low < guess / _FARTHEST:
            return 0.0
    while low == high:
        high *= _STEP
        if holds(high):
            low = high
    while high > low * _FACTOR:
        middle = sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def rows(workload: Workload, traces: Path, tables: Path) -> Iterator[str]:
    """A line for each operating point that the planner would load at all."""
    menu, trace = menu_of(parse_cluster(MIXED, "mixed"), tables), load(workload, traces, 1)
    demand, draw, limits = demand_of(trace, 1.0), drawn(trace, 1), workload.limits
    for profile in catalog_of(menu, demand.output_tokens).profiles:
        if profile.power.sm_clock_mhz or profile.partition_kind.startswith("mig/"):
            continue
        cost = cost_of(menu, profile.variant_id, profile.device_class, profile.partition_kind, 0)
        for batch in _BATCHES:
            try:
                station = station_of(profile, demand, batch)
            except ValueError:
                continue
            planned = float(capacities_per_s(station, limits.slo().latency)[0])
            if planned <= 0.0 and batch > 1:
                continue
            kept = kept_per_s(cost, batch, draw, limits, planned or 0.05)
            late, slow = missed(Replica("r", cost, batch), draw, planned or 0.05, limits)
            error = f"{planned / kept - 1.0:+.0%}" if kept else "none kept"
            point = f"{workload.name} | {profile.device_class} {profile.variant_id} | {batch}"
            yield f"{point} | {planned:.3g} | {kept:.3g} | {error} | {late:.2%} | {slow:.2%}"


def main(arguments: list[str]) -> None:
    """Prints the table."""
    traces, tables, names = Path(arguments[0]), Path(arguments[1]), arguments[2:]
    print("workload | point | batch | planned/s | kept/s | error | late at planned | slow at planned")
    for workload in WORKLOADS:
        if not names or workload.name in names:
            for row in rows(workload, traces, tables):
                print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
