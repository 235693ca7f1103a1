"""The fixtures' boards, and what must hold for each: the same scheme, plans in words, the same answer every time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.node_agent.core.mig import Layout, Plan, Planner, Standing, check_plan, report

from .fixtures import A30, A100_40, BOARDS, MACHINES, Board, Source, layout, wanted

EIGHT_SEVEN = [board for board in BOARDS if board is not A30]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("board", EIGHT_SEVEN, ids=lambda board: board.table.name)
def test_boards_of_one_scheme_differ_in_names_and_memory_only(board: Board) -> None:
    def scheme(one: Board) -> list[tuple[object, ...]]:
        return [(p.profile_id, p.compute_slices, p.instance_limit, p.placements, p.engines) for p in one.table.profiles]

    assert scheme(board) == scheme(A100_40)
    assert (board.table.memory_slices, board.table.compute_slices) == (8, 7)
    assert board.table.engine_limits == {"ofa": 1}


def test_memory_grows_with_the_placement() -> None:
    for board in BOARDS:
        by_size = sorted((p.placements[0].size, p.memory_bytes) for p in board.table.profiles)
        assert [memory for _, memory in by_size] == sorted(memory for _, memory in by_size)


def test_boards_never_seen_on_hardware_are_marked() -> None:
    assert {b.table.name for b in BOARDS if b.source is Source.INFERRED} == {"GH200-96", "H200-141", "B200-180"}


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_every_board_of_a_machine_goes_from_whole_to_smallest_and_back(machine: str) -> None:
    for board in set(MACHINES[machine]):
        planner, table = Planner(board.table), board.table
        smallest = min(table.profiles, key=lambda p: (p.compute_slices, p.placements[0].size, p.engines))
        whole = max(table.profiles, key=lambda p: p.compute_slices)
        stands = Layout()
        for wish in ({smallest.profile_id: smallest.instance_limit}, {whole.profile_id: 1}, {}):
            plan = planner.plan(Standing(stands), wish)
            assert isinstance(plan, Plan)
            assert check_plan(table, Standing(stands), wish, plan) == ()
            stands = plan.after
        assert stands == Layout()


def test_a_plan_can_be_read(plain: Planner) -> None:
    table = plain.space.table
    stands = layout(table, "1g.5gb@0")
    plan = plain.plan(Standing(stands, live=frozenset(stands)), wanted(table, "1g.5gb 4g.20gb"))
    assert isinstance(plan, Plan)
    text = report(table, plan)

    assert text.splitlines()[0] == "A100-40: 1g.5gb@0 → 4g.20gb@0, 1g.5gb@6"
    assert "work of 1g.5gb@0 moves to 1g.5gb@6 without a stop" in text
    assert "1. create GPU instance 1g.5gb@6" in text
    gone = plain.plan(Standing(stands, live=frozenset(stands)), {})
    assert isinstance(gone, Plan)
    assert "work of 1g.5gb@0 has to leave the board" in report(table, gone)
    still = plain.plan(Standing(stands), wanted(table, "1g.5gb"))
    assert isinstance(still, Plan)
    assert "nothing to do" in report(table, still)


def test_plans_do_not_depend_on_the_process() -> None:
    """Sets of slices are hashed; the order in which they iterate must decide nothing."""
    program = (
        "from tests.mig.fixtures import *\n"
        "from services.node_agent.core.mig import *\n"
        "planner = Planner(A100_40.table)\n"
        "layouts = list(planner.space.layouts())[::97]\n"
        "print([planner.plan(Standing(a, live=frozenset(a)), b.counts()) for a in layouts for b in layouts])\n"
        "print([planner.admit(Standing(a, live=frozenset(a)), 9) for a in layouts])\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 10_000
