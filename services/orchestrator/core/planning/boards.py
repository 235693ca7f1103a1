"""Which slices can lie on a board together: every legal layout, enumerated from the table that the board reports.

A layout is a bit mask over the board's seats (profile × start). It is legal when its slices lie on different memory
slices, take no more compute slices than the board's largest profile, no profile goes beyond its limit, and the one
extra engine is taken once. The rules are the node agent's (docs/mig.md), stated here a second time: services share no
code. A board without a table has one layout: the partitions it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from services.orchestrator.core.facts.fleet import WHOLE_KIND, Device, Partition, SliceKind

# A board with all of today's profiles has 2,319 layouts; ten times that is refused rather than planned slowly, and the
# board is then used with the partitions that it has.
MOST_LAYOUTS: Final = 25_000
# Boards of different kinds in one fleet, limited ones included, that are kept enumerated; answers of one that are kept.
_KEPT_BOARDS: Final = 1_024
# Tables of single devices that are known again by themselves: those of the largest fleets, a hundred bytes each.
_MOST_MET: Final = 20_000
_KEPT_ANSWERS: Final = 8_192

Kinds = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Seat:
    """A place for one slice; `suffix` with the device's id is the slice's identity."""

    kind: str
    suffix: str
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """Seats and the legal sets of them, as masks; `layouts` are grouped by how many slices of each kind they have.

    Attributes:
        bits: the mask of each seat by its suffix.
        most: the most slices of each kind that can stand at once.
    """

    seats: tuple[Seat, ...]
    layouts: tuple[tuple[Kinds, tuple[int, ...]], ...]
    bits: dict[str, int]
    most: Kinds
    _largest: dict[int, tuple[Kinds, ...]] = field(default_factory=dict)
    _cut: dict[tuple[Kinds, int, int], int | None] = field(default_factory=dict)
    _seats_of: dict[int, tuple[Seat, ...]] = field(default_factory=dict)

    def memory_of(self, kind: str) -> int:
        """Memory of the largest seat of a kind."""
        return max((seat.memory_bytes for seat in self.seats if seat.kind == kind), default=0)

    def mask_of(self, device_id: str, partition_ids: tuple[str, ...]) -> int:
        """The seats that partitions of a device take; ids that are no seats count nothing."""
        mask = 0
        for name in partition_ids:
            mask |= self.bits.get(name.removeprefix(device_id), 0)
        return mask

    def kinds_of(self, mask: int) -> Counter[str]:
        """How many slices of each kind a mask has."""
        return Counter(seat.kind for seat in self.seats_of(mask))

    def seats_of(self, mask: int) -> tuple[Seat, ...]:
        """The seats of a mask, in their order."""
        if mask not in self._seats_of:
            if len(self._seats_of) >= _KEPT_ANSWERS:
                self._seats_of.clear()
            self._seats_of[mask] = tuple(seat for index, seat in enumerate(self.seats) if mask >> index & 1)
        return self._seats_of[mask]

    def largest_beside(self, occupied: int) -> tuple[Kinds, ...]:
        """The largest numbers of slices by kind that contain the occupied seats; none is a part of another."""
        if occupied not in self._largest:
            if len(self._largest) >= _KEPT_ANSWERS:
                self._largest.clear()
            self._largest[occupied] = self._largest_beside(occupied)
        return self._largest[occupied]

    def _largest_beside(self, occupied: int) -> tuple[Kinds, ...]:
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
        key = (tuple(sorted(wanted.items())), occupied, standing)
        if key not in self._cut:
            if len(self._cut) >= _KEPT_ANSWERS:
                self._cut.clear()
            self._cut[key] = self._best_cut(wanted, occupied, standing)
        return self._cut[key]

    def _best_cut(self, wanted: Counter[str], occupied: int, standing: int) -> int | None:
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


def board_of_seats(seats: tuple[Seat, ...], layouts: tuple[tuple[Kinds, tuple[int, ...]], ...]) -> Board:
    """A board with its tables."""
    most: Counter[str] = Counter()
    for kinds, _ in layouts:
        most |= Counter(dict(kinds))
    bits = {seat.suffix: 1 << index for index, seat in enumerate(seats)}
    return Board(seats, layouts, bits, tuple(sorted(most.items())))


class Boards:
    """Boards of devices, each kind enumerated once. A memo of pure functions; its owner keeps it between plans."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Board] = {}
        self._met: dict[int, tuple[tuple[SliceKind, ...], int, Board]] = {}

    def of(self, device: Device) -> Board:
        """The board of a GPU. Partitions whose names its table does not know leave it as it is cut."""
        names = [partition.partition_id.removeprefix(device.device_id) for partition in device.partitions]
        if device.table:
            board = self._by_table(device)
            if board.layouts and all(name in board.bits for name in names):
                return board
        seats = tuple(
            Seat(p.kind, p.partition_id.removeprefix(device.device_id), p.memory_bytes)
            for p in sorted(device.partitions, key=lambda p: p.partition_id)
        )
        return self._kept((seats,), lambda: _as_it_is(seats))

    def _by_table(self, device: Device) -> Board:
        table, memory_bytes = device.table, device.memory_bytes
        board = self._whole(table, memory_bytes)
        if not device.layout_trouble:
            return board
        barred, kept = _suffixes(device, device.barred), _suffixes(device, device.kept)
        return self._kept((table, memory_bytes, barred, kept), lambda: _limited(board, barred, kept))

    def _whole(self, table: tuple[SliceKind, ...], memory_bytes: int) -> Board:
        """The board of a table; a table that was met before is not even compared with others."""
        met = self._met.get(id(table))
        if met and met[0] is table and met[1] == memory_bytes:
            return met[2]
        board = self._kept((table, memory_bytes), lambda: _enumerated(table, memory_bytes))
        if len(self._met) >= _MOST_MET:
            self._met.clear()
        self._met[id(table)] = (table, memory_bytes, board)
        return board

    def _kept(self, key: tuple[object, ...], make: Callable[[], Board]) -> Board:
        if key not in self._known:
            if len(self._known) >= _KEPT_BOARDS:
                self._known.clear()
            self._known[key] = make()
        return self._known[key]


def _suffixes(device: Device, partition_ids: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name.removeprefix(device.device_id) for name in partition_ids)


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
    return board_of_seats(tuple(board.seats[index] for index in left), tuple(layouts))


def _as_it_is(seats: tuple[Seat, ...]) -> Board:
    counts = tuple(sorted(Counter(seat.kind for seat in seats).items()))
    return board_of_seats(seats, ((counts, ((1 << len(seats)) - 1,)),))


def _enumerated(table: tuple[SliceKind, ...], memory_bytes: int) -> Board:
    places = [(kind, start) for kind in table for start in kind.starts]
    seats = [Seat(kind.kind, f":mig:{kind.profile_id}@{start}", kind.memory_bytes) for kind, start in places]
    grouped: dict[Kinds, list[int]] = {}
    compute = max(kind.compute_slices for kind in table)
    cells = [((1 << kind.memory_slices) - 1) << start for kind, start in places]
    frontier: list[tuple[int, int, int, tuple[SliceKind, ...]]] = [(0, 0, 0, ())]
    found = 0
    while frontier:
        mask, begin, taken, chosen = frontier.pop()
        grouped.setdefault(_kinds(chosen), []).append(mask)
        found += 1
        if found > MOST_LAYOUTS:
            return board_of_seats((), ())
        for index in range(begin, len(places)):
            kind = places[index][0]
            if not taken & cells[index] and _goes_beside(kind, chosen, compute):
                frontier.append((mask | 1 << index, index + 1, taken | cells[index], (*chosen, kind)))
    # The whole board, not cut at all, lies beside nothing.
    grouped[((WHOLE_KIND, 1),)] = [1 << len(seats)]
    seats.append(Seat(WHOLE_KIND, ":whole", memory_bytes))
    return board_of_seats(
        tuple(seats), tuple((kinds, tuple(sorted(masks))) for kinds, masks in sorted(grouped.items()))
    )


def _goes_beside(kind: SliceKind, others: tuple[SliceKind, ...], compute: int) -> bool:
    """Whether one more slice is allowed beside others that are; their memory is looked at elsewhere."""
    left, alike = compute - kind.compute_slices, kind.most - 1
    for other in others:
        left -= other.compute_slices
        alike -= other.profile_id == kind.profile_id
        if kind.extra_engine and other.extra_engine:
            return False
    return left >= 0 and alike >= 0


def _kinds(slices: tuple[SliceKind, ...]) -> Kinds:
    counts: dict[str, int] = {}
    for kind in slices:
        counts[kind.kind] = counts.get(kind.kind, 0) + 1
    return tuple(sorted(counts.items()))


def _contains(large: dict[str, int], small: dict[str, int]) -> bool:
    return all(large.get(kind, 0) >= count for kind, count in small.items())
