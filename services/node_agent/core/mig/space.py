"""All legal layouts of one board, built once from its table and then only looked up.

A layout is held as a bit mask over the board's *seats*: every slice that its table allows (profile × start; 25 on an
8/7 board). A layout is legal when

- its slices lie on different memory slices,
- their compute slices add up to no more than the board has,
- no profile has more than its limit of instances,
- engines that cannot be shared (media extensions, "+me") are taken no more often than they exist.

Each rule only counts up, so every part of a legal layout is legal: all of them are found by adding one slice at a
time, and an order that destroys first is never wrong. Must not hold anything that changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from operator import mul
from typing import Final

from .model import DeviceTable, Layout, Slice, Wanted

# An 8/7 board with all plain, double-memory and media profiles has 2319 layouts. A hundred times that is still a
# second or two of building; beyond it enumeration is the wrong method and we would rather hear of it.
MAX_LAYOUTS: Final = 250_000

# Number of slices of each profile, in the table's order of profiles.
Counts = tuple[int, ...]
# Set of seats.
Mask = int


class LayoutSpace:
    """Every legal layout of a board. Immutable after it is built; safe to share.

    Args:
        table: what the device reports.
        max_layouts: most layouts to enumerate.

    Raises:
        ValueError: the table has more layouts than that.
    """

    def __init__(self, table: DeviceTable, max_layouts: int = MAX_LAYOUTS) -> None:
        self.table: Final = table
        self._profile_ids: Final = tuple(profile.profile_id for profile in table.profiles)
        self.seats: Final[tuple[Slice, ...]] = _seats(table)
        self._seat_bits: Final = {seat: 1 << index for index, seat in enumerate(self.seats)}
        counts_of = dict(_Enumeration(table, self.seats, max_layouts).layouts())
        self._counts: Final[dict[Mask, Counts]] = counts_of
        self._open: Final = {mask: self._addable(mask) for mask in counts_of}
        self._by_counts: Final = _grouped(counts_of)

    # --- layouts as values -------------------------------------------------------------------------------------

    def layouts(self) -> Iterator[Layout]:
        """Every legal layout, the empty one first."""
        return map(self.decode, self._counts)

    def maximal_layouts(self) -> Iterator[Layout]:
        """Layouts to which nothing can be added."""
        return (self.decode(mask) for mask, addable in self._open.items() if not addable)

    def is_legal(self, slices: Iterable[Slice]) -> bool:
        """Whether these slices can stand on the board together."""
        wanted = list(slices)
        mask = self.encode(wanted)
        return mask is not None and mask in self._counts and mask.bit_count() == len(wanted)

    def addable(self, layout: Layout) -> tuple[Slice, ...]:
        """Slices that can be created beside a legal layout, in order of their start."""
        mask = self.encode(layout)
        if mask is None or mask not in self._open:
            raise ValueError("the layout is not legal on this board")
        return self.decode(self._open[mask]).slices

    # --- layouts as masks, for the planner -----------------------------------------------------------------------

    def encode(self, slices: Iterable[Slice]) -> Mask | None:
        """The mask of these slices; None when one of them is no seat of this board."""
        mask = 0
        for one in slices:
            bit = self._seat_bits.get(one)
            if bit is None:
                return None
            mask |= bit
        return mask

    def decode(self, mask: Mask) -> Layout:
        """The layout of a mask."""
        return Layout.of(self.seats[index] for index in bits(mask))

    def open_mask(self, mask: Mask) -> Mask | None:
        """Seats that can be added to a layout; None when the mask is not a legal layout."""
        return self._open.get(mask)

    def counts(self, wanted: Wanted) -> Counts:
        """A multiset in the form that the tables of this class are kept by; unknown ids are left out."""
        return tuple(wanted.get(profile_id, 0) for profile_id in self._profile_ids)

    def wanted(self, counts: Counts) -> dict[int, int]:
        """The opposite of `counts`."""
        return {profile_id: count for profile_id, count in zip(self._profile_ids, counts, strict=True) if count}

    def multisets(self) -> Iterator[Counts]:
        """Every multiset of profiles that some legal layout has."""
        return iter(self._by_counts)

    def between(self, lower: Counts, upper: Counts) -> Iterator[tuple[Counts, Sequence[Mask]]]:
        """Legal layouts by multiset, for multisets that hold at least `lower` and at most `upper`."""
        if lower == upper:
            masks = self._by_counts.get(lower)
            return iter([(lower, masks)] if masks else [])
        return (entry for entry in self._by_counts.items() if _within(lower, entry[0], upper))

    def _addable(self, mask: Mask) -> Mask:
        addable = 0
        for bit in self._seat_bits.values():
            if not mask & bit and mask | bit in self._counts:
                addable |= bit
        return addable


class _Enumeration:
    """Walks all legal layouts, adding seats in ascending order so that each is met once."""

    def __init__(self, table: DeviceTable, seats: Sequence[Slice], max_layouts: int) -> None:
        order = {profile.profile_id: index for index, profile in enumerate(table.profiles)}
        self._profile_of: Final = [order[seat.profile_id] for seat in seats]
        self._footprint_of: Final = [((1 << seat.size) - 1) << seat.start for seat in seats]
        self._rules: Final = _rules(table)
        self._none: Final[Counts] = (0,) * len(table.profiles)
        self._max_layouts: Final = max_layouts
        self._found = 0

    def layouts(self) -> Iterator[tuple[Mask, Counts]]:
        """Mask and multiset of every legal layout."""
        return self._grow(0, 0, 0, self._none)

    def _grow(self, mask: Mask, first: int, taken_memory: int, counts: Counts) -> Iterator[tuple[Mask, Counts]]:
        self._found += 1
        if self._found > self._max_layouts:
            raise ValueError(f"more than {self._max_layouts} layouts; this board cannot be planned by enumeration")
        yield mask, counts
        for index in range(first, len(self._profile_of)):
            if taken_memory & self._footprint_of[index]:
                continue
            profile = self._profile_of[index]
            grown = (*counts[:profile], counts[profile] + 1, *counts[profile + 1 :])
            if self._within_limits(grown):
                yield from self._grow(mask | 1 << index, index + 1, taken_memory | self._footprint_of[index], grown)

    def _within_limits(self, counts: Counts) -> bool:
        return all(sum(map(mul, amounts, counts)) <= limit for limit, amounts in self._rules)


def bits(mask: Mask) -> Iterator[int]:
    """Indices of the set bits, ascending."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _seats(table: DeviceTable) -> tuple[Slice, ...]:
    return tuple(
        Slice(placement.start, placement.size, profile.profile_id)
        for profile in table.profiles
        for placement in profile.placements
    )


def _rules(table: DeviceTable) -> list[tuple[int, Counts]]:
    """What counts up: a limit of the board, and what one instance of each profile takes of it."""
    profiles = table.profiles
    rules = [(table.compute_slices, tuple(profile.compute_slices for profile in profiles))]
    rules += [(one.instance_limit, tuple(int(one is other) for other in profiles)) for one in profiles]
    for engine, limit in table.engine_limits.items():
        rules.append((limit, tuple(dict(profile.engines).get(engine, 0) for profile in profiles)))
    return rules


def _within(lower: Counts, counts: Counts, upper: Counts) -> bool:
    return all(least <= count <= most for least, count, most in zip(lower, counts, upper, strict=True))


def _grouped(counts_of: dict[Mask, Counts]) -> dict[Counts, tuple[Mask, ...]]:
    groups: defaultdict[Counts, list[Mask]] = defaultdict(list)
    for mask, counts in counts_of.items():
        groups[counts].append(mask)
    return {counts: tuple(masks) for counts, masks in groups.items()}
