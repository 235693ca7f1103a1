"""A limit of end-to-end latency in the simulator: judged, and answered when it is missed."""

from __future__ import annotations

import math
import random
from functools import cache

from services.orchestrator.core.facts.policy import POLICIES
from services.simulator.outcome import Outcome
from services.simulator.run import Case, Limits, demand_of, run
from services.simulator.trace import Trace
from tests.simulation.house import menu

RATE_PER_S, LENGTH_S = 2.0, 600.0


@cache
def steady() -> Trace:
    """Independent requests; a twentieth of the answers has three times the tokens that are planned for, or more."""
    draw, at_s, rows = random.Random(1), 0.0, list[tuple[float, int, int]]()
    while (at_s := at_s + draw.expovariate(RATE_PER_S)) < LENGTH_S:
        rows.append((at_s, int(draw.lognormvariate(6.5, 0.7)) + 1, int(draw.lognormvariate(5.0, 0.8)) + 1))
    return Trace("chat", *(tuple(column) for column in zip(*rows, strict=True)))  # type: ignore[arg-type]


@cache
def outcome(e2e_s: float) -> Outcome:
    """Under this limit alone, with the load stated as it is."""
    cluster, points = menu()
    case = Case(cluster, points, steady(), Limits(math.inf, math.inf, 95.0, e2e_s), look_s=2.0)
    return run(case, POLICIES["energy"], demand_of(steady(), RATE_PER_S, RATE_PER_S))


def provisioned(of: Outcome) -> float:
    """The greatest demand that was planned for, in requests a second."""
    words = [line["trigger"] for line in of.journal if line["trigger"].startswith("demand of chat")]
    return max([RATE_PER_S, *(float(w.split("→")[1].split()[0]) for w in words)])


def test_a_missed_limit_is_answered_with_more_than_the_load_asks_for() -> None:
    lax, tight = outcome(60.0), outcome(6.0)
    assert lax.attainment == lax.e2e_attainment > 0.99
    assert tight.attainment == tight.e2e_attainment < 0.95, "answers this long take longer on any board"
    assert (lax.ttft_attainment, tight.ttft_attainment) == (1.0, 1.0), "nothing else is limited"
    assert provisioned(tight) > 1.5 * provisioned(lax)
    assert tight.e2e.p50_s < lax.e2e.p50_s
    assert not (*lax.findings, *tight.findings)
