"""Times the planner on synthetic fleets: a first plan, the same again, and a plan for other demands.

    python -m bench.orchestrator.planner [--seeds N] [NODES DEPLOYMENTS …]

Prints a line for each: seconds, gap, replicas, how much changed, groups of like devices. The independent check is
timed beside it. A first plan in a process that planned before takes less; the first seed's is of a fresh one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Final, TypeVar

from bench.orchestrator.fleet_of import busier, ready, situation
from services.orchestrator.core.checking.check import check
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.planning.ground import ground_of
from services.orchestrator.core.planning.offer import Known
from services.orchestrator.core.planning.plan import Plan, make_plan

SIZES: Final = ((100, 20), (1_000, 50), (10_000, 100))
T = TypeVar("T")


def main() -> None:
    """Runs all sizes, or those given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("numbers", type=int, nargs="*", metavar="NODES DEPLOYMENTS")
    options = parser.parse_args()
    numbers = options.numbers
    for nodes, deployments in zip(numbers[::2], numbers[1::2], strict=True) if numbers else SIZES:
        for seed in range(options.seeds):
            first, known = situation(nodes, deployments, seed), Known()
            plan = _timed("first", nodes, deployments, first, known)
            settled = ready(first, plan.blueprint)
            _timed("again", nodes, deployments, settled, known)
            _timed("busier", nodes, deployments, busier(settled, 1.25, seed + 1), known)
            _timed("calmer", nodes, deployments, busier(settled, 0.6, seed + 1), known)


def _timed(name: str, nodes: int, deployments: int, world: Situation, known: Known) -> Plan:
    began_s = time.process_time()
    took_s, plan = _clock(lambda: make_plan(world, known))
    cpu_s = time.process_time() - began_s
    check_s, findings = _clock(lambda: check(world, plan.blueprint, plan.explanations))
    groups_s, ground = _clock(lambda: ground_of(world, known.boards))
    parent = {r.replica_id for r in world.parent.replicas}
    new = sum(r.replica_id not in parent for r in plan.blueprint.replicas)
    met = sum(e.feasible for e in plan.explanations)
    print(
        f"{nodes:6d} × {deployments:3d} {name:7s} {took_s:7.2f} s ({cpu_s:.2f} s CPU)  "
        f"gap {plan.gap:6.2%}  met {met}/{deployments}  "
        f"replicas {len(plan.blueprint.replicas)} ({new} new, {len(plan.blueprint.leaving)} leaving)  "
        f"groups {len(ground.groups)} ({groups_s:.2f} s)  check {check_s:.2f} s {findings[:3] or ''}",
        flush=True,
    )
    return plan


def _clock(work: Callable[[], T]) -> tuple[float, T]:
    began_s = time.perf_counter()
    result = work()
    return time.perf_counter() - began_s, result


if __name__ == "__main__":
    main()
