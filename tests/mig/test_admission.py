"""One more slice: a free start now, after moves, or not at all, and then what is in the way."""

from __future__ import annotations

from services.node_agent.core.mig import (
    Layout,
    Plan,
    Planner,
    Policy,
    Refusal,
    RefusalReason,
    Standing,
    check_admission,
)

from .fixtures import layout, slice_at, wanted


def profile_id(planner: Planner, name: str) -> int:
    """The id of a profile by name."""
    (number,) = wanted(planner.space.table, name)
    return number


def test_a_free_start_needs_no_change(plain: Planner) -> None:
    table = plain.space.table
    stands = layout(table, "3g.20gb@4")
    plan = plain.admit(Standing(stands, live=frozenset(stands)), profile_id(plain, "1g.5gb"))

    assert isinstance(plan, Plan)
    assert (plan.destroyed, len(plan.created)) == ((), 1)


def test_starts_are_ranked_by_what_stays_open(plain: Planner) -> None:
    starts = plain.starts(Layout(), profile_id(plain, "1g.5gb"))

    assert starts[0].start == 6, "seat 6 takes a place from 3g@4 and 7g only"
    assert sorted(place.start for place in starts) == list(range(7))
    assert plain.starts(layout(plain.space.table, "1g.5gb@0"), profile_id(plain, "4g.20gb")) == ()


def test_enough_is_free_but_only_after_a_move(plain: Planner) -> None:
    table = plain.space.table
    stands = layout(table, "1g.5gb@0")
    standing = Standing(stands, live=frozenset(stands))
    plan = plain.admit(standing, profile_id(plain, "4g.20gb"))

    assert isinstance(plan, Plan)
    assert [move.made_before_break for move in plan.moves] == [True]
    assert plan.after.counts() == wanted(table, "1g.5gb 4g.20gb")
    forbidden = plain.admit(standing, profile_id(plain, "4g.20gb"), Policy(max_live_destroyed=0))
    assert isinstance(forbidden, Refusal)
    assert forbidden.reason is RefusalReason.DISTURBS_TOO_MUCH


def test_idle_slices_of_other_profiles_are_given_up(plain: Planner) -> None:
    stands = layout(plain.space.table, "3g.20gb@0 3g.20gb@4")
    busy, idle = stands.slices
    plan = plain.admit(Standing(stands, live=frozenset([busy])), profile_id(plain, "2g.10gb"))

    assert isinstance(plan, Plan)
    assert (plan.kept, plan.destroyed) == ((busy,), (idle,))


def test_nothing_idle_is_given_up_when_a_move_of_idle_ones_will_do(plain: Planner) -> None:
    stands = layout(plain.space.table, "1g.5gb@0")
    plan = plain.admit(Standing(stands), profile_id(plain, "4g.20gb"))

    assert isinstance(plan, Plan)
    assert plan.after.counts() == wanted(plain.space.table, "1g.5gb 4g.20gb")


def test_a_full_board_names_what_would_have_to_go(plain: Planner) -> None:
    table = plain.space.table
    stands = layout(table, "3g.20gb@0 2g.10gb@4 1g.5gb@6")
    answer = plain.admit(Standing(stands, live=frozenset(stands)), profile_id(plain, "2g.10gb"))

    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.OCCUPIED
    assert answer.in_the_way == (slice_at(table, "1g.5gb@6"),)
    assert answer.figures == {"stay": 3, "in_the_way": 1, "memory_slices_free": 1, "compute_slices_free": 1}


def test_a_pinned_slice_is_named_when_it_alone_is_in_the_way(plain: Planner) -> None:
    table = plain.space.table
    stands = layout(table, "1g.5gb@0 1g.5gb@6")
    answer = plain.admit(Standing(stands, pinned=frozenset(stands)), profile_id(plain, "4g.20gb"))

    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.PINNED_IN_THE_WAY
    assert answer.in_the_way == (slice_at(table, "1g.5gb@0"),)


def test_a_second_one_beyond_the_limit_names_the_first(plain: Planner) -> None:
    stands = layout(plain.space.table, "4g.20gb@0")

    idle = plain.admit(Standing(stands), profile_id(plain, "4g.20gb"))
    pinned = plain.admit(Standing(stands, pinned=frozenset(stands)), profile_id(plain, "4g.20gb"))

    assert isinstance(idle, Refusal) and isinstance(pinned, Refusal)
    assert (idle.reason, idle.in_the_way) == (RefusalReason.OCCUPIED, stands.slices)
    assert (pinned.reason, pinned.in_the_way) == (RefusalReason.PINNED_IN_THE_WAY, stands.slices)


def test_when_slices_may_move_free_amounts_are_enough(plain: Planner) -> None:
    """On a plain 8/7 board fragmentation is always curable: enough free means admitted, after moves at most."""
    table = plain.space.table
    moved = 0
    for stands in plain.space.layouts():
        standing = Standing(stands, live=frozenset(stands))
        for profile in table.profiles:
            one = {profile.profile_id: 1}
            free_memory = table.memory_slices - sum(each.size for each in stands)
            free_compute = table.compute_slices - table.compute_slices_of(stands.counts())
            enough = free_memory >= table.memory_slices_of(one) and free_compute >= profile.compute_slices
            answer = plain.admit(standing, profile.profile_id)
            if isinstance(answer, Plan):
                assert enough
                assert check_admission(table, standing, profile.profile_id, answer) == ()
                moved += bool(answer.destroyed)
            else:
                assert not enough, f"{table.describe(stands)} + {profile.name}: {answer.message}"
    assert moved > 100
