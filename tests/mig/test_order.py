"""The order of steps: legal throughout, new before old where there is room, and never more stops than must be."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from services.node_agent.core.mig import (
    Action,
    Layout,
    Order,
    Plan,
    Planner,
    Policy,
    Slice,
    Standing,
    check_plan,
)

from . import brute_force
from .fixtures import layout, slice_at, wanted


def planned(planner: Planner, before: str, target: str, policy: Policy | None = None) -> Plan:
    """The plan from a fully live layout to a multiset."""
    stands = layout(planner.space.table, before)
    standing = Standing(stands, live=frozenset(stands))
    plan = planner.plan(standing, wanted(planner.space.table, target), policy or Policy())
    assert isinstance(plan, Plan)
    assert check_plan(planner.space.table, standing, wanted(planner.space.table, target), plan) == ()
    return plan


def spelled(plan: Plan) -> list[str]:
    """Steps in short: "+gpu 19@0"."""
    sign = {
        Action.CREATE_GPU: "+gpu",
        Action.CREATE_COMPUTE: "+ci",
        Action.DESTROY_COMPUTE: "-ci",
        Action.DESTROY_GPU: "-gpu",
    }
    return [f"{sign[step.action]} {step.slice}" for step in plan.steps]


def test_the_new_slice_comes_before_the_old_one_goes(plain: Planner) -> None:
    plan = planned(plain, "1g.5gb@0", "1g.5gb 4g.20gb")

    assert spelled(plan) == ["+gpu 19@6", "+ci 19@6", "-ci 19@0", "-gpu 19@0", "+gpu 5@0", "+ci 5@0"]
    (move,) = plan.moves
    assert (str(move.source), str(move.destination), move.made_before_break) == ("19@0", "19@6", True)


def test_destroy_first_is_a_choice(plain: Planner) -> None:
    plan = planned(plain, "1g.5gb@0", "1g.5gb 4g.20gb", Policy(order=Order.DESTROY_FIRST))

    assert spelled(plan)[:2] == ["-ci 19@0", "-gpu 19@0"]
    assert [move.made_before_break for move in plan.moves] == [False]


def test_the_documented_trap_is_none(plain: Planner) -> None:
    """1g, 1g, 2g, 3g made in this order without placements fails on real boards."""
    plan = planned(plain, "", "1g.5gb 1g.5gb 2g.10gb 3g.20gb")

    assert {str(one) for one in plan.after if one.profile_id == 9} == {"9@4"}


def test_the_first_3g_goes_to_start_4(plain: Planner) -> None:
    assert planned(plain, "", "3g.20gb").after == layout(plain.space.table, "3g.20gb@4")


def test_nothing_to_do_is_no_step(plain: Planner) -> None:
    assert planned(plain, "3g.20gb@0 1g.5gb@6", "3g.20gb 1g.5gb").steps == ()


def test_a_gpu_instance_without_compute_instance_is_completed_or_removed(plain: Planner) -> None:
    table = plain.space.table
    stands = layout(table, "1g.5gb@0 3g.20gb@4")
    standing = Standing(stands, bare=frozenset(stands))

    kept = plain.plan(standing, wanted(table, "1g.5gb 3g.20gb"))
    removed = plain.plan(standing, wanted(table, "3g.20gb"))

    assert isinstance(kept, Plan) and isinstance(removed, Plan)
    assert spelled(kept) == ["+ci 19@0", "+ci 9@4"]
    assert spelled(removed) == ["+ci 9@4", "-gpu 19@0"]


def test_a_pinned_half_made_slice_is_left_alone(plain: Planner) -> None:
    table = plain.space.table
    stands = layout(table, "1g.5gb@0")
    plan = plain.plan(Standing(stands, pinned=frozenset(stands), bare=frozenset(stands)), wanted(table, "1g.5gb"))

    assert isinstance(plan, Plan)
    assert plan.steps == ()


def test_idle_slices_go_before_live_ones(plain: Planner) -> None:
    table = plain.space.table
    stands = layout(table, "2g.10gb@0 2g.10gb@2")
    idle, live = slice_at(table, "2g.10gb@2"), slice_at(table, "2g.10gb@0")
    plan = plain.plan(Standing(stands, live=frozenset([live])), wanted(table, "2g.10gb"))

    assert isinstance(plan, Plan)
    assert (plan.destroyed, plan.kept) == ((idle,), (live,))


def test_no_order_needs_fewer_stops(plain: Planner) -> None:
    """Each second plain state: no order, to this target or one as gentle, stops less work than the plan does."""
    table = plain.space.table
    targets = brute_force.by_multiset(brute_force.all_layouts(table))
    with_stops = 0
    for before in list(plain.space.layouts())[::2]:
        live = brute_force.seats_of(before)
        for target, others in targets.items():
            plan = plain.plan(Standing(before, live=frozenset(before)), dict(target))
            assert isinstance(plan, Plan)
            stops = sum(not move.made_before_break for move in plan.moves)
            if stops:
                with_stops += 1
                gentle = [other for other in others if len(live - other) == len(plan.destroyed)]
                assert stops == min(fewest_stops(plain, live, other) for other in gentle)
    assert with_stops > 0


def fewest_stops(planner: Planner, before: brute_force.Seats, after: brute_force.Seats) -> int:
    """Fewest moves with a stop over every legal order of a change, all of `before` live."""
    table = planner.space.table
    movable = {
        profile_id: min(_number(before - after, profile_id), _number(after - before, profile_id))
        for profile_id, _ in before | after
    }

    @cache
    def smooth(board: brute_force.Seats, spare: tuple[int, ...], stopped: tuple[int, ...]) -> int:
        best = 0
        for seat, coming in _changes(board, before, after):
            then = board | {seat} if coming else board - {seat}
            if coming and not brute_force.legal(table, then):
                continue
            here = seat[0] in stopped if coming else seat[0] in spare
            if coming:
                following = (spare, _less(stopped, seat[0])) if here else ((*spare, seat[0]), stopped)
            else:
                following = (_less(spare, seat[0]), stopped) if here else (spare, (*stopped, seat[0]))
            gain = int(here and not coming)
            best = max(best, gain + smooth(then, *(tuple(sorted(part)) for part in following)))
        return best

    return sum(movable.values()) - smooth(before, (), ())


def _changes(
    board: brute_force.Seats, before: brute_force.Seats, after: brute_force.Seats
) -> Iterator[tuple[brute_force.Seat, bool]]:
    yield from ((seat, True) for seat in sorted(after - before - board))
    yield from ((seat, False) for seat in sorted(board - after))


def _number(seats: brute_force.Seats, profile_id: int) -> int:
    return sum(seat[0] == profile_id for seat in seats)


def _less(numbers: tuple[int, ...], one: int) -> tuple[int, ...]:
    rest = list(numbers)
    rest.remove(one)
    return tuple(rest)


def test_kept_slices_are_in_no_step(extended: Planner) -> None:
    table = extended.space.table
    plan = planned(extended, "3g.20gb@4 1g.5gb@0 1g.5gb@2", "3g.20gb 1g.10gb 1g.5gb")
    touched: set[Slice] = {step.slice for step in plan.steps}

    assert not touched & set(plan.kept)
    assert slice_at(table, "3g.20gb@4") in plan.kept
    assert plan.after.counts() == wanted(table, "3g.20gb 1g.10gb 1g.5gb")
    assert Layout.of([*plan.kept, *plan.created]) == plan.after
