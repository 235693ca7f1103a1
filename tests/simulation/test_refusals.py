"""A simulated replica and its gateway refuse whom the real ones would refuse."""

from __future__ import annotations

import pytest

from services.gateway.limits import MAX_WAITING
from services.node_agent.core.schedule import MAX_QUEUED, Policy, Progress, State, submit
from services.orchestrator.core.facts.policy import POLICIES
from services.simulator.engine.replica import Replica
from services.simulator.engine.request import Request
from services.simulator.engine.world import LEAD_S
from services.simulator.run import Case, demand_of, run
from services.simulator.trace import Trace
from tests.simulation.house import LIMITS, menu
from tests.simulation.test_replica import COST
from tradewind.domain.errors import Overloaded

CALM_S, MOMENT_S = 30.0, 0.001


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_a_replica_has_room_for_as_many_as_the_engine(batch: int) -> None:
    simulated, state, taken = Replica("r", COST, batch), State((None,) * batch), 0
    with pytest.raises(Overloaded):
        for taken in range(1000):
            state = submit(state, Progress(taken, 10, 10), Policy())
            assert simulated.submit(Request(taken, 0.0, 10, 10), 0.0)
    assert taken == batch + MAX_QUEUED
    assert not simulated.submit(Request(taken, 0.0, 10, 10), 0.0)
    assert simulated.in_hand == taken


def crowd(count: int) -> Case:
    """A request a second, and then a crowd at one moment."""
    calm = [float(n) for n in range(int(CALM_S))]
    times = (*calm, *(CALM_S + n * MOMENT_S for n in range(count)))
    cluster, points = menu()
    trace = Trace("crowd", times, (500,) * len(times), (100,) * len(times))
    return Case(cluster, points, trace, LIMITS, look_s=2.0)


def test_a_crowd_beyond_all_room_is_refused_and_counts_against_the_slo() -> None:
    case = crowd(3000)
    outcome = run(case, POLICIES["static"], demand_of(case.trace, 1.0))
    assert outcome.refused > 3000 - MAX_WAITING - 4 * (64 + MAX_QUEUED)
    assert (outcome.lost, outcome.cut, outcome.findings) == (0, 0, ())
    assert outcome.attainment <= 1.0 - outcome.refused / outcome.requests
    assert outcome.output_tokens == 100 * (outcome.requests - outcome.refused)
    assert outcome.done_s < LEAD_S, "those that were taken were answered"


def test_a_crowd_that_finds_room_in_time_is_not_refused() -> None:
    case = crowd(200)
    outcome = run(case, POLICIES["static"], demand_of(case.trace, 1.0))
    assert (outcome.refused, outcome.lost) == (0, 0)
