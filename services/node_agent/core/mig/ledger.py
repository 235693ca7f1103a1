"""What an executor must remember of a board over crashes: records of a journal, and the ledger that they add up to.

    Booted → Adopted → Began → (Intended → Done | Failed)* → [TurnedBack → (Intended → Done | Failed)*] → Ended

The device is the truth of what stands; the ledger only says whose it is, where it was going, and what was in hand. A
record lost at the end of the journal (its write was cut off) therefore never changes what is done next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from .goal import Goal, Order
from .model import Slice
from .plan import Action, Step


class Outcome(StrEnum):
    """How a change of a layout ended. Closed list."""

    # What was wished stands.
    REACHED = "reached"
    # It was not begun: it cannot be, or not beside what must stay.
    REFUSED = "refused"
    # It failed, and what stood before stands again.
    RESTORED = "restored"
    # Something outside has to act: a holder nobody sees, a reset; what stood before stands again.
    BLOCKED = "blocked"
    # It failed, and so did the way back: the board takes no work until a new wish succeeds.
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class ModeStep:
    """A change of the MIG mode."""

    enabled: bool


# One call of the device.
Call = Step | ModeStep


@dataclass(frozen=True, slots=True)
class Booted:
    """The machine was started: slices of before are gone."""

    boot_id: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """Slices of unknown origin that are ours from now on, by the operator's setting."""

    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class Began:
    """A change: from where, to where, by which wish."""

    order: Order
    content: str
    origin: Goal
    goal: Goal


@dataclass(frozen=True, slots=True)
class Renewed:
    """A later wish for the same: what is under way, or how it ended, stands."""

    order: Order


@dataclass(frozen=True, slots=True)
class Intended:
    """The next call; on the disk before it is made."""

    call: Call


@dataclass(frozen=True, slots=True)
class Done:
    """The call's effect was read back."""

    call: Call


@dataclass(frozen=True, slots=True)
class Failed:
    """The call was refused, and reading again shows no effect of it."""

    call: Call


@dataclass(frozen=True, slots=True)
class TurnedBack:
    """The change failed; the way leads to its origin. `outcome` is how it ends when that is reached."""

    outcome: Outcome
    code: str
    words: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A change ended, or a wish was refused, with what of ours stands now."""

    order: Order
    content: str
    outcome: Outcome
    code: str
    words: str
    stands: Goal


@dataclass(frozen=True, slots=True)
class Operation:
    """A change under way.

    Attributes:
        back: why it goes back to its origin; None on the way to its goal.
    """

    origin: Goal
    goal: Goal
    back: TurnedBack | None = None

    @property
    def heading(self) -> Goal:
        """Where it goes now."""
        return self.origin if self.back else self.goal


@dataclass(frozen=True, slots=True)
class Ledger:
    """The sum of a journal.

    Attributes:
        boot_id: boot in which it was last written; "" before the first record.
        order: of the newest wish taken; None before the first.
        content: of that wish.
        ours: slices that we made or adopted; all others are somebody else's.
        settled: what of ours stood when the last change ended; None before the first.
        operation: the change under way.
        intent: a call that may or may not have been made.
        last: how the last change ended.
    """

    boot_id: str = ""
    order: Order | None = None
    content: str = ""
    ours: frozenset[Slice] = field(default_factory=frozenset)
    settled: Goal | None = None
    operation: Operation | None = None
    intent: Call | None = None
    last: Ended | None = None


Record = Booted | Adopted | Began | Renewed | Intended | Done | Failed | TurnedBack | Ended | Ledger


def fold(records: Iterable[Record]) -> Ledger:
    """The ledger of a whole journal."""
    ledger = Ledger()
    for record in records:
        ledger = add(ledger, record)
    return ledger


def add(ledger: Ledger, record: Record) -> Ledger:
    """The ledger after one more record; a Ledger as a record stands for all before it."""
    match record:
        case Ledger():
            return record
        case Booted(boot_id):
            return replace(ledger, boot_id=boot_id, ours=frozenset(), intent=None)
        case Adopted(slices):
            return replace(ledger, ours=ledger.ours | set(slices))
        case Began(order, content, origin, goal):
            operation = Operation(origin, goal)
            return replace(ledger, order=order, content=content, operation=operation, intent=None)
        case Renewed(order):
            return replace(ledger, order=order)
        case Intended(call):
            return replace(ledger, intent=call, ours=_owned(ledger.ours, call))
        case Done(call):
            return replace(ledger, intent=None, ours=_without(ledger.ours, call, Action.DESTROY_GPU))
        case Failed(call):
            return replace(ledger, intent=None, ours=_without(ledger.ours, call, Action.CREATE_GPU))
        case TurnedBack():
            assert ledger.operation is not None, "only a change under way turns back"
            return replace(ledger, operation=replace(ledger.operation, back=record), intent=None)
        case Ended(order, content, _, _, _, stands):
            ours = frozenset(stands.layout)
            return replace(
                ledger,
                order=order,
                content=content,
                ours=ours,
                settled=stands,
                operation=None,
                intent=None,
                last=record,
            )


def _owned(ours: frozenset[Slice], call: Call) -> frozenset[Slice]:
    """A slice is ours from the intent on: the call may succeed and nobody live to write it down."""
    if isinstance(call, Step) and call.action is Action.CREATE_GPU:
        return ours | {call.slice}
    return ours


def _without(ours: frozenset[Slice], call: Call, action: Action) -> frozenset[Slice]:
    if isinstance(call, Step) and call.action is action:
        return ours - {call.slice}
    return ours
