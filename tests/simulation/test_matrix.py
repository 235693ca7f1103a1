"""The matrix: runs are kept and go on, several at a time change nothing, and nothing goes below the bound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.orchestrator.core.facts.policy import POLICIES
from services.simulator.bound import least_j
from services.simulator.kept import Kept
from services.simulator.matrix import Workload, evaluate
from services.simulator.outcome import Outcome
from services.simulator.run import Case, run
from tests.simulation.house import HERE, LIMITS, TABLES, case, menu, stated

TINY = Workload("tiny", "azure2023_conv_300.csv", LIMITS, from_s=0.0, look_s=2.0)
POLICY_NAMES = ("static-peak", "energy")


def matrix(kept: Path | None, jobs: int = 1, *, run_missing: bool = True) -> tuple[list[str], list[Outcome]]:
    """Steps as they were told, and outcomes."""
    told: list[str] = []
    _, results = evaluate(
        [TINY], POLICY_NAMES, HERE, TABLES, 1, lambda _, policy, step, __: told.append(f"{policy}:{step}"), menu()[0],
        kept=Kept(kept) if kept else None, jobs=jobs, run_missing=run_missing,
    )  # fmt: skip
    return told, results[0][1]


def test_what_was_run_is_not_run_again(tmp_path: Path) -> None:
    _, first = matrix(tmp_path)
    told, again = matrix(tmp_path)
    assert told == ["static-peak:kept", "energy:kept"]
    assert again == first
    (tmp_path / "tiny.energy.1.json").unlink()
    told, known = matrix(tmp_path, run_missing=False)
    assert known == first[:1], "only what is kept, and nothing is run"


def test_a_kept_run_of_another_question_does_not_count(tmp_path: Path) -> None:
    of = case()
    outcome = run(of, POLICIES["energy"], stated(of))
    kept = Kept(tmp_path)
    kept.put(of, "energy", outcome)
    assert kept.find(of, "energy") == outcome
    assert kept.find(of, "latency") is None
    assert kept.find(replace(of, look_s=3.0), "energy") is None
    assert kept.find(replace(of, limits=replace(LIMITS, ttft_s=2.0)), "energy") is None


def test_several_at_a_time_give_the_same(tmp_path: Path) -> None:
    _, one = matrix(None)
    _, two = matrix(tmp_path, jobs=2)
    assert [o.digest for o in two] == [o.digest for o in one]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.energy.1.json", "tiny.static-peak.1.json"]


@pytest.mark.parametrize("policy", ["static", "energy"])
def test_nothing_goes_below_the_bound(policy: str) -> None:
    of: Case = case()
    least = least_j(of)
    assert least is not None
    assert 0.0 < least < run(of, POLICIES[policy], stated(of)).energy.total_j
