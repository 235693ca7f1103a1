"""The checker: a good plan passes, every way to spoil it is found. (A checker that always agrees proves nothing.)"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.node_agent.core.mig import (
    Action,
    DeviceTable,
    GiProfile,
    Layout,
    Placement,
    Plan,
    Planner,
    Slice,
    Standing,
    Step,
    check,
    check_admission,
    check_plan,
)

from .fixtures import layout, slice_at, wanted

SEED = 4
SAMPLED_PLANS = 150


@pytest.fixture
def standing(plain: Planner) -> Standing:
    """A live 1g in the place of a 4g that is to come, a live 3g beside it."""
    stands = layout(plain.space.table, "1g.5gb@0 2g.10gb@4")
    return Standing(stands, live=frozenset(stands))


@pytest.fixture
def asked(plain: Planner) -> dict[int, int]:
    """What the board shall have."""
    return wanted(plain.space.table, "1g.5gb 4g.20gb 2g.10gb")


@pytest.fixture
def plan(plain: Planner, standing: Standing, asked: dict[int, int]) -> Plan:
    """A good plan."""
    answer = plain.plan(standing, asked)
    assert isinstance(answer, Plan)
    assert check_plan(plain.space.table, standing, asked, answer) == ()
    return answer


def _steps(plan: Plan, change: Callable[[list[Step]], object]) -> Plan:
    steps = list(plan.steps)
    change(steps)
    return replace(plan, steps=tuple(steps))


def spoiled(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """The plan with one thing wrong."""
    for index, step in enumerate(plan.steps):
        yield f"without {step}", _steps(plan, lambda steps, index=index: steps.pop(index))  # type: ignore[misc]
        yield f"twice {step}", _steps(plan, lambda steps, index=index: steps.insert(index, steps[index]))  # type: ignore[misc]
        moved = replace(step.slice, start=step.slice.start + 1)
        yield f"shifted {step}", _steps(plan, lambda s, i=index, to=moved: s.__setitem__(i, replace(s[i], slice=to)))  # type: ignore[misc]
    yield "reversed", _steps(plan, lambda steps: steps.reverse())
    if plan.created:
        yield "claims nothing created", replace(plan, created=())
    if plan.destroyed:
        yield "claims nothing destroyed", replace(plan, destroyed=())
    if plan.live_destroyed:
        yield "hides what is live", replace(plan, live_destroyed=())
    if plan.moves:
        swapped = tuple(replace(move, made_before_break=not move.made_before_break) for move in plan.moves)
        yield "turns the order of moves", replace(plan, moves=swapped)
    yield "names another end", replace(plan, after=Layout(plan.after.slices[:-1]))
    yield "names another start", replace(plan, before=Layout.of([*plan.before, Slice(63, 1, 0)]))


def test_every_way_to_spoil_a_plan_is_found(
    plain: Planner, standing: Standing, asked: dict[int, int], plan: Plan
) -> None:
    ways = list(spoiled(plan))

    assert len(ways) > 20
    for how, bad in ways:
        assert check_plan(plain.space.table, standing, asked, bad), how


def test_spoiled_plans_of_many_pairs_are_found(whole: Planner) -> None:
    seeded = random.Random(SEED)
    layouts = list(whole.space.layouts())
    for _ in range(SAMPLED_PLANS):
        stands, asked = seeded.choice(layouts), seeded.choice(layouts).counts()
        standing = Standing(stands, live=frozenset(stands))
        plan = whole.plan(standing, asked)
        assert isinstance(plan, Plan)
        if plan.steps and len(plan.after):
            how, bad = seeded.choice(list(spoiled(plan)))
            assert check_plan(whole.space.table, standing, asked, bad), f"{how}: {plan}"


def test_another_wish_is_found(plain: Planner, standing: Standing, plan: Plan) -> None:
    (violation,) = check_plan(plain.space.table, standing, {19: 1}, plan)
    assert violation.step is None and "wanted" in violation.message


def test_a_touched_pinned_slice_is_found(plain: Planner, asked: dict[int, int], plan: Plan) -> None:
    pinned = Standing(plan.before, live=frozenset(plan.before), pinned=frozenset(plan.before))
    messages = [violation.message for violation in check_plan(plain.space.table, pinned, asked, plan)]
    assert "touches pinned 19@0" in messages


def test_a_slice_destroyed_and_made_again_is_found(plain: Planner) -> None:
    table = plain.space.table
    one = slice_at(table, "1g.5gb@0")
    board = Layout.of([one])
    again = tuple(
        Step(action, one)
        for action in (Action.DESTROY_COMPUTE, Action.DESTROY_GPU, Action.CREATE_GPU, Action.CREATE_COMPUTE)
    )
    plan = Plan(board, board, (one,), (), (), (), (), again, 0)

    (violation,) = check_plan(table, Standing(board), {19: 1}, plan)
    assert "made again" in violation.message


@pytest.mark.parametrize(
    ("before", "created", "says"),
    [
        ("3g.20gb@0", "2g.10gb@2", "overlaps"),
        ("3g.20gb@4 2g.10gb@0 1g.5gb@2", "1g.5gb@3 1g.5gb@3", "overlaps"),
        ("4g.20gb@0 1g.5gb@4 1g.5gb@5", "1g.10gb@6 1g.5gb+me@6", "overlaps"),
        ("1g.5gb+me@0", "1g.5gb+me@1", "at most 1"),
        ("7g.40gb@0", "1g.5gb+me@0", "× ofa of 1"),
    ],
)
def test_each_rule_of_the_board_is_seen(whole: Planner, before: str, created: str, says: str) -> None:
    table = whole.space.table
    stands = layout(table, before)
    steps = tuple(
        Step(action, slice_at(table, word))
        for word in created.split()
        for action in (Action.CREATE_GPU, Action.CREATE_COMPUTE)
    )
    after = Layout.of({*stands, *(step.slice for step in steps)})
    bad = Plan(stands, after, stands.slices, (), tuple(sorted(set(after) - set(stands))), (), (), steps, 0)

    messages = [violation.message for violation in check_plan(table, Standing(stands), after.counts(), bad)]
    assert any(says in message for message in messages), messages


def test_too_much_compute_is_seen() -> None:
    """On real boards memory runs out first, so this one is imagined: compute is scarce, memory is not."""
    greedy = GiProfile(1, "greedy", 3, 1 << 30, 4, tuple(Placement(start, 1) for start in range(4)))
    whole = GiProfile(0, "whole", 4, 4 << 30, 1, (Placement(0, 4),))
    stands, two = Layout.of([Slice(0, 1, 1)]), Slice(1, 1, 1)
    steps = (Step(Action.CREATE_GPU, two), Step(Action.CREATE_COMPUTE, two))
    bad = Plan(stands, Layout.of([*stands, two]), stands.slices, (), (two,), (), (), steps, 0)

    violations = check_plan(DeviceTable("imagined", (whole, greedy)), Standing(stands), {1: 2}, bad)
    assert [(v.step, v.message) for v in violations] == [(0, "6 compute slices of 4"), (1, "6 compute slices of 4")]


def test_an_admission_that_loses_work_is_found(plain: Planner) -> None:
    table = plain.space.table
    stands = layout(table, "1g.5gb@0")
    replaced = plain.plan(Standing(stands), wanted(table, "4g.20gb"))
    assert isinstance(replaced, Plan)

    assert check_admission(table, Standing(stands), 5, replaced) == ()
    live = Standing(stands, live=frozenset(stands))
    honest = replace(replaced, live_destroyed=stands.slices)
    assert [v.message for v in check_admission(table, live, 5, honest) if "at least" in v.message]


def test_the_checker_shares_no_code_with_the_planner() -> None:
    source = Path(check.__file__).read_text()
    imports = [line.split()[1] for line in source.splitlines() if line.startswith("from .")]
    assert sorted(imports) == [".model", ".plan"]


def test_placement_is_plain_data() -> None:
    assert Placement(4, 4) < Placement(5, 1)
    with pytest.raises(ValueError, match="no such placement"):
        Placement(-1, 1)
