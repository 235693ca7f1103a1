"""Boards that nobody has built: the planner knows no product, so any table must do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from services.node_agent.core.mig import (
    DeviceTable,
    GiProfile,
    Layout,
    Order,
    Placement,
    Plan,
    Planner,
    Policy,
    RefusalReason,
    Standing,
    check_admission,
    check_plan,
)

from . import brute_force


@st.composite
def tables(draw: st.DrawFn) -> DeviceTable:
    """A board of up to six memory slices with up to four profiles."""
    memory_slices = draw(st.integers(2, 6))
    profiles = []
    for profile_id in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, memory_slices))
        starts = draw(st.sets(st.integers(0, memory_slices - size), min_size=1, max_size=5))
        profiles.append(
            GiProfile(
                profile_id=profile_id,
                name=f"p{profile_id}",
                compute_slices=draw(st.integers(1, 5)),
                memory_bytes=size << 30,
                instance_limit=draw(st.integers(1, 4)),
                placements=tuple(Placement(start, size) for start in sorted(starts)),
                engines=draw(st.sampled_from([(), (("ofa", 1),), (("ofa", 2), ("jpeg", 1))])),
            )
        )
    return DeviceTable("imagined", tuple(profiles))


@st.composite
def questions(draw: st.DrawFn) -> tuple[Planner, Standing, Layout, Policy]:
    """A planner, a board with live, pinned and bare slices, a layout whose multiset is wanted, and a policy."""
    planner = Planner(draw(tables()))
    layouts = list(planner.space.layouts())
    before, target = draw(st.sampled_from(layouts)), draw(st.sampled_from(layouts))
    marks = {one: draw(st.sampled_from(["idle", "live", "bare", "pinned", "live and pinned"])) for one in before}
    standing = Standing(
        before,
        live=frozenset(one for one, mark in marks.items() if "live" in mark),
        pinned=frozenset(one for one, mark in marks.items() if "pinned" in mark),
        bare=frozenset(one for one, mark in marks.items() if mark == "bare"),
    )
    return planner, standing, target, Policy(order=draw(st.sampled_from(Order)))


@settings(max_examples=80, deadline=None)
@given(tables())
def test_enumeration_of_any_board(table: DeviceTable) -> None:
    found = [brute_force.seats_of(one) for one in Planner(table).space.layouts()]

    assert len(found) == len(set(found))
    assert set(found) == brute_force.all_layouts(table)


@settings(max_examples=120, deadline=None)
@given(questions())
def test_a_plan_is_legal_complete_and_the_gentlest(question: tuple[Planner, Standing, Layout, Policy]) -> None:
    planner, standing, target, policy = question
    table, asked = planner.space.table, target.counts()
    others = brute_force.by_multiset(brute_force.all_layouts(table))[brute_force.multiset(asked)]
    live, pinned = (brute_force.seats_of(Layout.of(part)) for part in (standing.live, standing.pinned))

    answer = planner.plan(standing, asked, policy)

    best = brute_force.fewest_destroyed(others, live, pinned)
    if isinstance(answer, Plan):
        assert check_plan(table, standing, asked, answer) == ()
        assert len(answer.live_destroyed) == best
    else:
        assert best is None
        assert answer.reason is RefusalReason.PINNED_IN_THE_WAY


@settings(max_examples=120, deadline=None)
@given(questions(), st.data())
def test_admission_agrees_with_brute_force(
    question: tuple[Planner, Standing, Layout, Policy], data: st.DataObject
) -> None:
    planner, standing, _, policy = question
    table = planner.space.table
    profile_id = data.draw(st.sampled_from([profile.profile_id for profile in table.profiles]))
    before = brute_force.seats_of(standing.layout)
    layouts = brute_force.all_layouts(table)
    starts = {seat for layout in layouts if before < layout and len(layout - before) == 1 for seat in layout - before}

    answer = planner.admit(standing, profile_id, policy)

    if isinstance(answer, Plan):
        assert check_admission(table, standing, profile_id, answer) == ()
        assert (not answer.destroyed) == any(seat[0] == profile_id for seat in starts)
    else:
        assert not any(_admits(standing, profile_id, layout) for layout in layouts)


def _admits(standing: Standing, profile_id: int, layout: brute_force.Seats) -> bool:
    """Whether a layout holds one more of the profile, everything live or pinned in number, and the pinned in place."""
    held = dict(brute_force.counts_of(layout))
    most = standing.layout.counts()
    most[profile_id] = most.get(profile_id, 0) + 1
    least = {**Layout.of(standing.live | standing.pinned).counts(), profile_id: most[profile_id]}
    return (
        brute_force.seats_of(Layout.of(standing.pinned)) <= layout
        and all(held.get(one, 0) >= count for one, count in least.items())
        and all(count <= most.get(one, 0) for one, count in held.items())
    )
