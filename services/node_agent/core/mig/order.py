"""The order of a change: which slice goes and which comes, one after the other, each state in between legal.

Decides nothing about *which* slices change; `planner.py` has chosen them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from .model import Slice
from .plan import Action, Move, Order, Step
from .space import LayoutSpace, Mask, bits


@dataclass(frozen=True, slots=True)
class Change:
    """From one legal layout to another, as masks; `live` are slices of `before` that carry work."""

    before: Mask
    after: Mask
    live: Mask

    @property
    def destroyed(self) -> Mask:
        """Seats that become free or are taken by others."""
        return self.before & ~self.after

    @property
    def created(self) -> Mask:
        """Seats that are filled anew."""
        return self.after & ~self.before


@dataclass(slots=True)
class Ordering:
    """Seats in the order in which they change, and where live work can move."""

    seats: list[tuple[bool, Slice]] = field(default_factory=list)  # (created, slice)
    moves: list[Move] = field(default_factory=list)

    @property
    def broken_moves(self) -> int:
        """Moves whose work has to stop, since the old slice goes before the new one is there."""
        return sum(not move.made_before_break for move in self.moves)


def put_in_order(space: LayoutSpace, change: Change, order: Order) -> Ordering:
    """Puts a change in order.

    Make before break: whatever can be created now is; otherwise the slice goes that costs least (see `_Walk`).
    """
    walk = _Walk(space, change)
    if order is Order.DESTROY_FIRST:
        walk.destroy_all()
    while walk.pending:
        walk.create_ready()
        walk.destroy_cheapest()
    return walk.result


def spell(ordered: Ordering, bare: frozenset[Slice], kept_bare: list[Slice]) -> tuple[Step, ...]:
    """Spells a sequence out in calls.

    Args:
        ordered: the slices in their order.
        bare: slices that have no compute instance to destroy.
        kept_bare: slices that stay and get the compute instance they lack, first of all.
    """
    spelled = [Step(Action.CREATE_COMPUTE, one) for one in kept_bare]
    for created, one in ordered.seats:
        if created:
            spelled += [Step(Action.CREATE_GPU, one), Step(Action.CREATE_COMPUTE, one)]
        else:
            spelled += [Step(Action.DESTROY_COMPUTE, one)] if one not in bare else []
            spelled += [Step(Action.DESTROY_GPU, one)]
    return tuple(spelled)


class _Walk:
    """The board while a change goes on.

    A slice that goes costs, from least to most: it is idle; its work has a new slice, or none is coming; its work has
    to stop until its new slice can be made. Among equals, one goes whose room lets a wanted slice come.
    """

    def __init__(self, space: LayoutSpace, change: Change) -> None:
        self._space: Final = space
        self._live: Final = change.live
        self._board = change.before
        self._to_destroy = change.destroyed
        self._to_create = change.created
        # Slices made and not yet given to work that moves; work that was stopped and waits for its new slice.
        self._made: list[Slice] = []
        self._stopped: list[Slice] = []
        self.result: Final = Ordering()

    @property
    def pending(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._to_destroy | self._to_create)

    def destroy_all(self) -> None:
        """Destroys everything that goes, in order of its start."""
        for index in sorted(bits(self._to_destroy), key=self._space.seats.__getitem__):
            self._destroy(index)

    def create_ready(self) -> None:
        """Creates what is legal now, until nothing more is; what live work waits for comes first."""
        while ready := self._ready(self._board):
            leaving = Counter(self._space.seats[i].profile_id for i in bits(self._to_destroy & self._live))
            seats = self._space.seats
            self._create(min(bits(ready), key=lambda i: (-leaving[seats[i].profile_id], seats[i])))

    def destroy_cheapest(self) -> None:
        """Destroys the slice that costs least, if any is left."""
        if self._to_destroy:
            self._destroy(min(bits(self._to_destroy), key=self._cost))

    def _cost(self, index: int) -> tuple[int, bool, Slice]:
        seat = self._space.seats[index]
        if not self._live >> index & 1:
            grade = 0
        elif self._find(self._made, seat) or not self._replacement_to_come(seat):
            grade = 1
        else:
            grade = 2
        return grade, not self._ready(self._board & ~(1 << index)), seat

    def _replacement_to_come(self, seat: Slice) -> bool:
        return any(self._space.seats[i].profile_id == seat.profile_id for i in bits(self._to_create))

    def _ready(self, board: Mask) -> Mask:
        addable = self._space.open_mask(board)
        assert addable is not None, "a part of a legal layout is legal"
        return addable & self._to_create

    def _create(self, index: int) -> None:
        seat = self._space.seats[index]
        self._board |= 1 << index
        self._to_create &= ~(1 << index)
        self.result.seats.append((True, seat))
        if source := self._find(self._stopped, seat):
            self._stopped.remove(source)
            self.result.moves.append(Move(source, seat, made_before_break=False))
        else:
            self._made.append(seat)

    def _destroy(self, index: int) -> None:
        seat = self._space.seats[index]
        self._board &= ~(1 << index)
        self._to_destroy &= ~(1 << index)
        self.result.seats.append((False, seat))
        if not self._live >> index & 1:
            return
        if destination := self._find(self._made, seat):
            self._made.remove(destination)
            self.result.moves.append(Move(seat, destination, made_before_break=True))
        else:
            self._stopped.append(seat)

    @staticmethod
    def _find(slices: list[Slice], like: Slice) -> Slice | None:
        return next((one for one in slices if one.profile_id == like.profile_id), None)
