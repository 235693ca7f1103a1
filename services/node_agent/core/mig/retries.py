"""How often a call that failed is tried again, and what a failure that stays means. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .ledger import Outcome


class Fault(StrEnum):
    """Why a call was not done; the kinds of `services.node_agent.gpu.faults`, and the helper being away."""

    NOT_SUPPORTED = "not_supported"
    NO_PERMISSION = "no_permission"
    NOT_THERE = "not_there"
    INVALID_REQUEST = "invalid_request"
    IN_USE = "in_use"
    NO_ROOM = "no_room"
    RESET_REQUIRED = "reset_required"
    BOARD_LOST = "board_lost"
    DRIVER_TROUBLE = "driver_trouble"
    NO_DRIVER = "no_driver"
    HELPER_AWAY = "helper_away"


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a call is tried in all, and the pause before the next try; tries None for as long as it takes."""

    tries: int | None
    pause_s: float


# A holder that nobody sees (a monitoring daemon, as a rule) lets go within seconds or never: five tries over six
# seconds end well within the fifteen in which a blocked board has to say so.
_IN_USE: Final = Patience(5, 1.5)
# The board was read again and the place is free: the answer was about a state that has passed, or is wrong.
_NO_ROOM: Final = Patience(2, 0.5)
# A time-out or an unknown error: once more after reading again.
_TROUBLE: Final = Patience(2, 0.5)
# Nothing was asked of the board: whoever restarts the helper or brings the board back is waited for.
_OUTSIDE: Final = Patience(None, 1.0)
# Saying it again changes nothing.
_FINAL: Final = Patience(1, 0.0)
# The mode was changed under the call, so the answer was about another board than the one decided for.
_OVERTAKEN: Final = _NO_ROOM

_PATIENCE: Final = {
    Fault.IN_USE: _IN_USE,
    Fault.NO_ROOM: _NO_ROOM,
    Fault.NOT_THERE: _NO_ROOM,
    Fault.DRIVER_TROUBLE: _TROUBLE,
    Fault.BOARD_LOST: _OUTSIDE,
    Fault.NO_DRIVER: _OUTSIDE,
    Fault.HELPER_AWAY: _OUTSIDE,
}

_HIDDEN_HOLDER: Final = (
    "holder unknown: the board says that it is in use and no process is seen on it. Monitoring often holds it: restart "
    "DCGM (dcgm-exporter, nv-hostengine) and nvidia-persistenced, then send the layout again"
)


def patience(fault: Fault, *, overtaken: bool = False) -> Patience:
    """How long to try.

    Args:
        fault: why the call was not done.
        overtaken: whether the board's mode is another one than before the call.
    """
    return _PATIENCE.get(fault, _OVERTAKEN if overtaken else _FINAL)


def verdict(fault: Fault, message: str) -> tuple[Outcome, str, str]:
    """How a change ends that a fault stopped for good, once the earlier layout stands again: outcome, code, words."""
    if fault is Fault.IN_USE:
        return Outcome.BLOCKED, "holder_unknown", f"{_HIDDEN_HOLDER} ({message})"
    if fault is Fault.RESET_REQUIRED:
        return Outcome.BLOCKED, fault, f"{message}; reset the board in a maintenance window, then send the layout again"
    return Outcome.RESTORED, fault, message
