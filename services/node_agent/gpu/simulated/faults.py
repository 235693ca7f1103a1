"""Faults as data: which call they strike, how often, and what they do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.node_agent.core.mig.model import Placement


class FaultKind(StrEnum):
    """What goes wrong. The first group answers with an error, the second acts and lets the call go on."""

    IN_USE = "in_use"
    NO_ROOM = "no_room"
    NO_PERMISSION = "no_permission"
    NOT_FOUND = "not_found"
    TROUBLE = "trouble"
    MISSING_SYMBOL = "missing_symbol"
    BOARD_LOST = "board_lost"
    LOST_REPLY = "lost_reply"

    HANG = "hang"
    NOT_ACTIVE = "not_active"
    FOREIGN_CREATE = "foreign_create"
    FOREIGN_DESTROY = "foreign_destroy"
    FOREIGN_MODE_OFF = "foreign_mode_off"
    COUNTER_RESET = "counter_reset"
    COUNTER_FROZEN = "counter_frozen"
    COUNTER_ABSENT = "counter_absent"
    CAP_CLIPPED = "cap_clipped"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: what it does.
        verb: the method of the port that it strikes; "" for any.
        uuid: the board; "" for any.
        after: how many such calls pass unharmed first.
        times: how many calls in a row it strikes then.
        number: HANG: seconds; NOT_ACTIVE: the activation status; CAP_CLIPPED: milliwatts that another limiter allows.
        profile_id: FOREIGN_CREATE: the profile.
        placement: FOREIGN_CREATE, FOREIGN_DESTROY: the place.

    LOST_REPLY does what was asked and then answers with a time-out. BOARD_LOST, COUNTER_FROZEN and COUNTER_ABSENT stay.
    """

    kind: FaultKind
    verb: str = ""
    uuid: str = ""
    after: int = 0
    times: int = 1
    number: float = 0
    profile_id: int = -1
    placement: Placement | None = None


class FaultQueue:
    """Faults that wait for their calls."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        """Puts a fault in."""
        self._waiting.append((fault, 0))

    def strikes(self, verb: str, uuid: str) -> tuple[Fault, ...]:
        """Faults that strike this call, in the order in which they were added. Counts the call."""
        struck, left = [], []
        for fault, seen in self._waiting:
            matches = fault.verb in ("", verb) and fault.uuid in ("", uuid)
            if matches and seen >= fault.after:
                struck.append(fault)
            seen += matches
            if seen < fault.after + fault.times:
                left.append((fault, seen))
        self._waiting = left
        return tuple(struck)
