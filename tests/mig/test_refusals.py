"""Refusals: the reason, the figures, the fewest that are in the way, and a sentence that helps."""

from __future__ import annotations

import pytest

from services.node_agent.core.mig import (
    Layout,
    Plan,
    Planner,
    Policy,
    Refusal,
    RefusalReason,
    Slice,
    Standing,
)

from .fixtures import layout, slice_at, wanted


def test_two_4g_never_fit(plain: Planner) -> None:
    table = plain.space.table
    answer = plain.plan(Standing(Layout()), wanted(table, "4g.20gb 4g.20gb"))

    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.DOES_NOT_FIT
    assert answer.unplaced == wanted(table, "4g.20gb")
    assert answer.figures == {
        "memory_slices_wanted": 8,
        "memory_slices": 8,
        "compute_slices_wanted": 8,
        "compute_slices": 7,
    }
    assert "1 × 4g.20gb fits, 1 × 4g.20gb has to go elsewhere" in answer.message


def test_a_pinned_slice_in_the_way_is_named(plain: Planner) -> None:
    table = plain.space.table
    stands = layout(table, "1g.5gb@0 1g.5gb@5")
    answer = plain.plan(Standing(stands, pinned=frozenset(stands)), wanted(table, "4g.20gb 1g.5gb 1g.5gb"))

    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.PINNED_IN_THE_WAY
    assert answer.in_the_way == (slice_at(table, "1g.5gb@0"),)
    assert answer.figures == {"pinned": 2, "pinned_in_the_way": 1}
    assert "1g.5gb@0" in answer.message


def test_policy_limits_live_slices_destroyed(plain: Planner) -> None:
    table = plain.space.table
    stands = layout(table, "1g.5gb@0 1g.5gb@1")
    standing = Standing(stands, live=frozenset(stands))

    answer = plain.plan(standing, wanted(table, "4g.20gb"), Policy(max_live_destroyed=1))

    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.DISTURBS_TOO_MUCH
    assert answer.in_the_way == stands.slices
    assert answer.figures == {"live_destroyed": 2, "live_destroyed_allowed": 1}
    assert isinstance(plain.plan(standing, wanted(table, "4g.20gb"), Policy(max_live_destroyed=2)), Plan)


def test_unknown_profiles_are_named_with_the_known_ones(plain: Planner) -> None:
    answer = plain.plan(Standing(Layout()), {99: 1, 19: 1})

    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.UNKNOWN_PROFILE
    assert answer.unplaced == {99: 1}
    assert "19 (1g.5gb)" in answer.message


@pytest.mark.parametrize("culprit", [Slice(2, 4, 9), Slice(0, 1, 77), Slice(4, 3, 9)], ids=str)
def test_slices_that_the_table_does_not_have_make_the_state_impossible(plain: Planner, culprit: Slice) -> None:
    stands = Layout.of([culprit, slice_at(plain.space.table, "1g.5gb@6")])

    for answer in (plain.plan(Standing(stands), {}), plain.admit(Standing(stands), 19)):
        assert isinstance(answer, Refusal)
        assert answer.reason is RefusalReason.IMPOSSIBLE_STATE
        assert answer.in_the_way == (culprit,)


def test_slices_that_overlap_make_the_state_impossible(plain: Planner) -> None:
    stands = layout(plain.space.table, "3g.20gb@0 1g.5gb@1")
    answer = plain.plan(Standing(stands), {})

    assert isinstance(answer, Refusal)
    assert (answer.reason, answer.in_the_way) == (RefusalReason.IMPOSSIBLE_STATE, stands.slices)


def test_mistakes_of_the_caller_are_errors(plain: Planner) -> None:
    stranger = slice_at(plain.space.table, "1g.5gb@0")

    with pytest.raises(ValueError, match="negative"):
        plain.plan(Standing(Layout()), {19: -1})
    with pytest.raises(ValueError, match="not on the board: 19@0"):
        Standing(Layout(), live=frozenset([stranger]))
    with pytest.raises(ValueError, match="carries no work"):
        Standing(Layout.of([stranger]), live=frozenset([stranger]), bare=frozenset([stranger]))
    with pytest.raises(ValueError, match="not legal"):
        plain.starts(layout(plain.space.table, "3g.20gb@0 1g.5gb@1"), 19)
