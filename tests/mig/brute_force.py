"""The planner's questions answered the slow, plain way, for comparison. Uses nothing of the library but its data.

A layout is a frozenset of (profile_id, start); whether it is legal is read off a row of memory seats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from services.node_agent.core.mig import DeviceTable, Layout

Seat = tuple[int, int]
Seats = frozenset[Seat]


def legal(table: DeviceTable, seats: Iterable[Seat]) -> bool:
    """Whether slices can stand together, by the rules as the documentation states them."""
    profiles = {profile.profile_id: profile for profile in table.profiles}
    row = [0] * max(p.start + p.size for profile in table.profiles for p in profile.placements)
    compute, counts, engines = 0, Counter[int](), Counter[str]()
    for profile_id, start in seats:
        profile = profiles[profile_id]
        size = next(p.size for p in profile.placements if p.start == start)
        for seat in range(start, start + size):
            row[seat] += 1
        compute += profile.compute_slices
        counts[profile_id] += 1
        engines.update(dict(profile.engines))
    board_engines = Counter[str]()
    for profile in table.profiles:
        board_engines |= Counter(dict(profile.engines))
    return (
        max(row) <= 1
        and compute <= max(profile.compute_slices for profile in table.profiles)
        and all(count <= profiles[profile_id].instance_limit for profile_id, count in counts.items())
        and all(count <= board_engines[engine] for engine, count in engines.items())
    )


def all_layouts(table: DeviceTable) -> set[Seats]:
    """Every legal layout, by adding any seat to any layout until nothing new comes."""
    seats = [(profile.profile_id, p.start) for profile in table.profiles for p in profile.placements]
    found: set[Seats] = {frozenset()}
    front = found
    while front:
        grown = {layout | {seat} for layout in front for seat in seats if seat not in layout}
        front = {layout for layout in grown - found if legal(table, layout)}
        found = found | front
    return found


def seats_of(layout: Layout) -> Seats:
    """A layout of the library in the form of this module."""
    return frozenset((one.profile_id, one.start) for one in layout)


def counts_of(seats: Seats) -> tuple[tuple[int, int], ...]:
    """The multiset of a layout."""
    return tuple(sorted(Counter(profile_id for profile_id, _ in seats).items()))


def multiset(wanted: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    """A multiset in the form of `counts_of`."""
    return tuple(sorted((profile_id, count) for profile_id, count in wanted.items() if count))


def by_multiset(layouts: Iterable[Seats]) -> dict[tuple[tuple[int, int], ...], list[Seats]]:
    """Layouts grouped by what they hold."""
    groups: dict[tuple[tuple[int, int], ...], list[Seats]] = {}
    for layout in layouts:
        groups.setdefault(counts_of(layout), []).append(layout)
    return groups


def fewest_destroyed(candidates: Iterable[Seats], live: Seats, pinned: Seats = frozenset()) -> int | None:
    """Fewest live slices that go on the way to one of the candidates; None when none keeps the pinned ones."""
    return min((len(live - candidate) for candidate in candidates if pinned <= candidate), default=None)
