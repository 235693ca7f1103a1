"""The counts that the documentation computes, each found again, and again by brute force."""

from __future__ import annotations

from collections import Counter

import pytest

from services.node_agent.core.mig import DeviceTable, LayoutSpace, Planner

from . import brute_force
from .fixtures import A30, A100_40, EXTENDED, PLAIN, Board, layout, only, slice_at


@pytest.mark.parametrize(
    ("table", "states", "multisets", "maximal", "maximal_multisets"),
    [
        (only(A100_40, *PLAIN), 298, 38, 19, 14),
        (only(A100_40, *EXTENDED), 723, 78, 78, 38),
        (only(A100_40, *PLAIN, "1g+me"), 1089, 64, 67, 24),
        (A100_40.table, 2319, 128, 239, 64),
        (only(A30, "1g", "2g", "4g"), 26, 10, 5, 4),
        (A30.table, 76, 20, 17, 8),
    ],
    ids=["plain", "double memory", "media", "all profiles", "A30 plain", "A30 all profiles"],
)
def test_documented_counts(
    table: DeviceTable, states: int, multisets: int, maximal: int, maximal_multisets: int
) -> None:
    space = LayoutSpace(table)
    largest = list(space.maximal_layouts())

    assert len(list(space.layouts())) == states
    assert len(list(space.multisets())) == multisets
    assert len(largest) == maximal
    assert len({brute_force.multiset(one.counts()) for one in largest}) == maximal_multisets


@pytest.mark.parametrize("board", [A100_40, A30], ids=lambda board: board.table.name)
def test_enumeration_agrees_with_brute_force(board: Board) -> None:
    names = ("1g", "2g", "4g", "1g+me", "2g+me") if board is A30 else EXTENDED
    table = only(board, *names)

    found = [brute_force.seats_of(one) for one in LayoutSpace(table).layouts()]

    assert len(found) == len(set(found))
    assert set(found) == brute_force.all_layouts(table)


def test_the_fourteen_maximal_multisets(plain: Planner) -> None:
    compute = {profile.profile_id: profile.compute_slices for profile in plain.space.table.profiles}
    found = Counter(
        "+".join(str(compute[one.profile_id]) for one in sorted(each, key=lambda one: -compute[one.profile_id]))
        for each in plain.space.maximal_layouts()
    )

    assert found == {
        "7": 1,
        "4+3": 1,
        "4+2+1": 1,
        "4+1+1+1": 1,
        "3+3": 1,
        "3+2+2": 1,
        "3+2+1+1": 2,
        "3+2+1": 1,
        "3+1+1+1+1": 1,
        "3+1+1+1": 1,
        "2+2+2+1": 1,
        "2+2+1+1+1": 3,
        "2+1+1+1+1+1": 3,
        "1+1+1+1+1+1+1": 1,
    }


@pytest.mark.parametrize(("name", "percent"), [("2g.10gb", 43), ("3g.20gb", 76), ("4g.20gb", 87)])
def test_free_amounts_say_nothing_about_a_free_start(plain: Planner, name: str, percent: int) -> None:
    table = plain.space.table
    profile = table.named(name)
    assert profile is not None
    enough = [
        each
        for each in plain.space.layouts()
        if table.memory_slices - sum(one.size for one in each) >= profile.placements[0].size
        and table.compute_slices - table.compute_slices_of(each.counts()) >= profile.compute_slices
    ]
    refused = [each for each in enough if not plain.starts(each, profile.profile_id)]

    assert round(100 * len(refused) / len(enough)) == percent


def test_every_part_of_a_legal_layout_is_legal(whole: Planner) -> None:
    for each in whole.space.layouts():
        assert all(whole.space.is_legal(set(each) - {one}) for one in each)


def test_media_extensions_exclude_each_other_across_profiles(a30: Planner) -> None:
    table = a30.space.table

    assert a30.space.is_legal(layout(table, "2g.12gb+me@0 1g.6gb@2"))
    assert not a30.space.is_legal(layout(table, "2g.12gb+me@0 1g.6gb+me@2"))


def test_strangers_and_doubles_are_not_legal(plain: Planner) -> None:
    one = slice_at(plain.space.table, "1g.5gb@0")

    assert plain.space.is_legal([one])
    assert not plain.space.is_legal([one, one])
    assert not plain.space.is_legal([slice_at(plain.space.table, "3g.20gb@2")])


def test_a_table_with_too_many_layouts_is_refused() -> None:
    table = only(A100_40, *PLAIN)

    assert len(list(LayoutSpace(table, max_layouts=298).layouts())) == 298
    with pytest.raises(ValueError, match="more than 297 layouts"):
        LayoutSpace(table, max_layouts=297)
