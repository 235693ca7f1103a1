"""Filling one replica before the next one works: less energy for the same answers; and a plan that is made once."""

from __future__ import annotations

from dataclasses import replace

from services.orchestrator.core.facts.policy import POLICIES
from services.simulator.run import run
from services.simulator.scenario import Scenario
from tests.simulation.house import faulty, stated


def test_packing_takes_less_energy_at_no_fewer_answers_in_time() -> None:
    case = faulty(Scenario())
    ample = replace(stated(case), requests_per_s=2.0 * stated(case).requests_per_s)
    even, packed = (run(case, POLICIES[name], ample) for name in ("static", "static-packed"))
    assert even.started > 1
    assert even.journal[0]["changes"] == packed.journal[0]["changes"], "the same replicas, only routed otherwise"
    assert packed.energy.active_j < 0.97 * even.energy.active_j
    assert packed.attainment >= even.attainment - 0.01
    assert not packed.findings


def test_a_fixed_placement_is_planned_once() -> None:
    case = faulty(Scenario())
    outcome = run(case, POLICIES["static"], stated(case))
    assert [line["trigger"] for line in outcome.journal] == ["start"]
