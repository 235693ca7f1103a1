"""Which slices can lie on a board together: every legal layout, enumerated from the table that the board reports.

A layout is a bit mask over the board's seats (profile × start). It is legal when its slices lie on different memory
slices, take no more compute slices than the board's largest profile, no profile goes beyond its limit, and the one
extra engine is taken once. The rules are the node agent's (docs/mig.md), stated here a second time: services share no
code. A board without a table has one layout: the partitions it has.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from services.orchestrator.core.facts.fleet import WHOLE_KIND, Device, Partition, SliceKind

# A board with all of today's profiles has 2,319 layouts; ten times that is refused rather than planned slowly, and the
# board is then used with the partitions that it has.
MOST_LAYOUTS: Final = 25_000
# Boards of different kinds in one fleet that are kept enumerated.
_KEPT_BOARDS: Final = 64

Kinds = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Seat:
    """A place for one slice; `suffix` with the device's id is the slice's identity."""

    kind: str
    suffix: str
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """Seats and the legal sets of them, as masks; `layouts` are grouped by how many slices of each kind they have."""

    seats: tuple[Seat, ...]
    layouts: tuple[tuple[Kinds, tuple[int, ...]], ...]

    @property
    def most(self) -> Kinds:
        """The most slices of each kind that can stand at once."""
        return _most(self)

    def memory_of(self, kind: str) -> int:
        """Memory of the largest seat of a kind."""
        return max((seat.memory_bytes for seat in self.seats if seat.kind == kind), default=0)

    def mask_of(self, device_id: str, partition_ids: tuple[str, ...]) -> int:
        """The seats that partitions of a device take; ids that are no seats count nothing."""
        taken = {name.removeprefix(device_id) for name in partition_ids}
        return sum(1 << index for index, seat in enumerate(self.seats) if seat.suffix in taken)

    def kinds_of(self, mask: int) -> Counter[str]:
        """How many slices of each kind a mask has."""
        return Counter(seat.kind for index, seat in enumerate(self.seats) if mask >> index & 1)

    def largest_beside(self, occupied: int) -> tuple[Kinds, ...]:
        """The largest numbers of slices by kind that contain the occupied seats; none is a part of another."""
        found = [dict(kinds) for kinds, masks in self.layouts if any(mask & occupied == occupied for mask in masks)]
        largest = [
            kinds
            for kinds in found
            if not any(other is not kinds and _contains(other, kinds) and other != kinds for other in found)
        ]
        return tuple(tuple(sorted(kinds.items())) for kinds in largest)

    def cut(self, wanted: Counter[str], occupied: int, standing: int) -> int | None:
        """A layout with at least these slices that keeps the occupied seats and most of the standing ones.

        Args:
            wanted: slices by kind, those on occupied seats included.
        """
        best: tuple[tuple[int, int, int], int] | None = None
        for kinds, masks in self.layouts:
            if any(dict(kinds).get(kind, 0) < count for kind, count in wanted.items()):
                continue
            for mask in masks:
                if mask & occupied != occupied:
                    continue
                rank = ((mask & standing).bit_count(), -mask.bit_count(), -mask)
                if best is None or rank > best[0]:
                    best = (rank, mask)
        return best[1] if best else None

    def partition(self, device: Device, index: int) -> Partition:
        """The partition on a seat: the one that stands there, else the one to be made."""
        seat = self.seats[index]
        name = device.device_id + seat.suffix
        standing = next((p for p in device.partitions if p.partition_id == name), None)
        return standing or Partition(name, device.device_id, seat.kind, memory_bytes=seat.memory_bytes)


def board_of(device: Device) -> Board:
    """The board of a GPU. Partitions whose names its table does not know leave it as it is cut."""
    if device.table:
        board = _enumerated(device.table, device.memory_bytes)
        names = {seat.suffix for seat in board.seats}
        if device.layout_trouble:
            board = _limited(board, _suffixes(device, device.barred), _suffixes(device, device.kept))
            names = {seat.suffix for seat in board.seats}
        if board.layouts and all(p.partition_id.removeprefix(device.device_id) in names for p in device.partitions):
            return board
    return _as_it_is(
        tuple(
            Seat(p.kind, p.partition_id.removeprefix(device.device_id), p.memory_bytes)
            for p in sorted(device.partitions, key=lambda p: p.partition_id)
        )
    )


def _suffixes(device: Device, partition_ids: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name.removeprefix(device.device_id) for name in partition_ids)


@lru_cache(maxsize=_KEPT_BOARDS * 16)
def _limited(board: Board, barred: frozenset[str], kept: frozenset[str]) -> Board:
    """The board without the barred seats, in those of its layouts that have the kept ones."""
    left = [index for index, seat in enumerate(board.seats) if seat.suffix not in barred]
    must = sum(1 << index for index in left if board.seats[index].suffix in kept)
    allowed = sum(1 << index for index in left)
    layouts = []
    for kinds, masks in board.layouts:
        fitting = [mask for mask in masks if mask | allowed == allowed and mask & must == must]
        packed = tuple(sorted(sum(1 << to for to, index in enumerate(left) if mask >> index & 1) for mask in fitting))
        if packed:
            layouts.append((kinds, packed))
    return Board(tuple(board.seats[index] for index in left), tuple(layouts))


@lru_cache(maxsize=_KEPT_BOARDS * 16)
def _as_it_is(seats: tuple[Seat, ...]) -> Board:
    counts = tuple(sorted(Counter(seat.kind for seat in seats).items()))
    return Board(seats, ((counts, ((1 << len(seats)) - 1,)),))


@lru_cache(maxsize=_KEPT_BOARDS)
def _most(board: Board) -> Kinds:
    found: Counter[str] = Counter()
    for kinds, _ in board.layouts:
        found |= Counter(dict(kinds))
    return tuple(sorted(found.items()))


@lru_cache(maxsize=_KEPT_BOARDS)
def _enumerated(table: tuple[SliceKind, ...], memory_bytes: int) -> Board:
    places = [(kind, start) for kind in table for start in kind.starts]
    seats = [Seat(kind.kind, f":mig:{kind.profile_id}@{start}", kind.memory_bytes) for kind, start in places]
    grouped: dict[Kinds, list[int]] = {}
    compute = max(kind.compute_slices for kind in table)
    frontier, found = [(0, 0)], 0
    while frontier:
        mask, begin = frontier.pop()
        chosen = [place for index, place in enumerate(places) if mask >> index & 1]
        grouped.setdefault(_kinds(chosen), []).append(mask)
        found += 1
        if found > MOST_LAYOUTS:
            return Board((), ())
        for index in range(begin, len(places)):
            if _legal([*chosen, places[index]], compute):
                frontier.append((mask | 1 << index, index + 1))
    # The whole board, not cut at all, lies beside nothing.
    grouped[((WHOLE_KIND, 1),)] = [1 << len(seats)]
    seats.append(Seat(WHOLE_KIND, ":whole", memory_bytes))
    return Board(tuple(seats), tuple((kinds, tuple(sorted(masks))) for kinds, masks in sorted(grouped.items())))


def _legal(slices: list[tuple[SliceKind, int]], compute: int) -> bool:
    taken = [cell for kind, start in slices for cell in range(start, start + kind.memory_slices)]
    counts = Counter(kind.profile_id for kind, _ in slices)
    return (
        len(taken) == len(set(taken))
        and sum(kind.compute_slices for kind, _ in slices) <= compute
        and all(counts[kind.profile_id] <= kind.most for kind, _ in slices)
        and sum(kind.extra_engine for kind, _ in slices) <= 1
    )


def _kinds(slices: list[tuple[SliceKind, int]]) -> Kinds:
    return tuple(sorted(Counter(kind.kind for kind, _ in slices).items()))


def _contains(large: dict[str, int], small: dict[str, int]) -> bool:
    return all(large.get(kind, 0) >= count for kind, count in small.items())
