"""Random faults together, on random nodes at random times: every check of a run holds.

A seed is a history; `HISTORIES=200` tries more of them.
"""

from __future__ import annotations

import os
import random

import pytest

from services.orchestrator.core.facts.policy import POLICIES
from services.simulator.run import Case, run
from services.simulator.scenario import Fault, FaultKind, Scenario
from tests.simulation.house import LIMITS, menu, stated, trace

# 10 and 51 cut streams once: nodes that were given up came back and ended what they had in hand.
SEEDS = range(int(os.environ["HISTORIES"])) if "HISTORIES" in os.environ else (0, 1, 10, 51)


def fault(rng: random.Random, nodes: list[str], until_s: float) -> Fault:
    kind = rng.choice(list(FaultKind))
    at_s, node = round(rng.uniform(0.0, until_s), 1), rng.choice(nodes)
    for_s = round(rng.choice([2, 8, 20, 45]) * rng.uniform(0.5, 1.5), 1)
    delay_s = rng.choice([0.5, 2, 5]) if kind is FaultKind.SLOW_LINK else rng.choice([-3600.0, 30.0, 3600.0])
    return Fault(at_s, kind, node, for_s, delay_s)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_goes_wrong_no_request_is_lost_and_no_stream_is_cut_but_by_a_crash(seed: int) -> None:
    rng, (cluster, points) = random.Random(seed), menu()
    requests = trace().stretched(rng.choice([0.5, 1.0, 2.0, 4.0])).copied(rng.choice([1, 2, 4]), 5.0, seed)
    nodes = [node.node_id for node in cluster.nodes()]
    faults = [fault(rng, nodes, 0.9 * requests.length_s) for _ in range(rng.randint(1, 8))]
    scenario = Scenario(tuple(sorted(faults, key=lambda f: (f.at_s, f.node))))
    case = Case(cluster, points, requests, LIMITS, look_s=rng.choice([1.0, 2.0]), scenario=scenario)
    policy = POLICIES[rng.choice(["energy", "energy", "latency", "energy-no-partitions", "energy-no-packing"])]
    outcome = run(case, policy, stated(case))
    assert not outcome.findings, scenario
    assert outcome.lost == 0
    assert outcome.cut == 0 or FaultKind.CRASH in {f.kind for f in faults}
