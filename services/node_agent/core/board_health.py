"""When a board is taken out. Pure.

A fault stays until the agent starts again on a board that was reset, but for one that only did not answer for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

# XIDs after which the board itself cannot be trusted (NVIDIA, "XID Errors"): 48 uncorrectable ECC, 64 row remapper
# failed, 79 fell off the bus, 95 uncontained ECC, 119 and 120 GSP time-out and error, 140 unrecovered ECC. Others, such
# as 13, 31, 43 and 45, are an application's doing; they are counted and told only.
BOARD_XIDS: Final = {
    48: "uncorrectable memory error",
    64: "row remapping failed",
    79: "fell off the bus",
    95: "uncontained memory error",
    119: "GSP does not answer",
    120: "GSP error",
    140: "unrecovered memory error",
}
# Sampling is each second: after three that did not end, others must not wait for a fourth. Under 5 s by promise 33.
SILENT_S: Final = 3.5
# Trouble of a driver that is gone at the next look is none.
TAKEN_OUT_AFTER: Final = 2


@dataclass(frozen=True, slots=True)
class BoardHealth:
    """What is known of a board.

    Attributes:
        lasting: a fault that stays, in words; "" when well.
        passing: why the last look failed, in words; "" when it did not.
        failures: looks in a row that failed.
        ecc_at_first: uncorrected errors at the first look; None before it.
    """

    lasting: str = ""
    passing: str = ""
    failures: int = 0
    ecc_at_first: int | None = None


def after_look(health: BoardHealth, ecc_uncorrected: int | None) -> BoardHealth:
    """A look that brought readings."""
    health = replace(health, passing="", failures=0)
    if ecc_uncorrected is None:
        return health
    if health.ecc_at_first is None:
        return replace(health, ecc_at_first=ecc_uncorrected)
    if ecc_uncorrected > health.ecc_at_first:
        return _lasting(health, f"{ecc_uncorrected - health.ecc_at_first} uncorrected memory errors since the start")
    return health


def after_failure(health: BoardHealth, words: str, lost: bool) -> BoardHealth:
    """A look that failed."""
    return _lasting(health, words) if lost else replace(health, passing=words, failures=health.failures + 1)


def after_xid(health: BoardHealth, number: int) -> BoardHealth:
    """The driver told of an XID."""
    words = BOARD_XIDS.get(number)
    return health if words is None else _lasting(health, f"XID {number}, {words}; reset the board")


def fault(health: BoardHealth, silent_s: float) -> str:
    """Why the board is out, in words; "" when it is well.

    Args:
        health: so far.
        silent_s: since the last look that ended.
    """
    if health.lasting:
        return health.lasting
    if health.failures >= TAKEN_OUT_AFTER:
        return health.passing
    return f"the driver has not answered for {silent_s:.0f} s" if silent_s > SILENT_S else ""


def _lasting(health: BoardHealth, words: str) -> BoardHealth:
    """The first one stays: it is nearest to the cause."""
    return health if health.lasting else replace(health, lasting=words)
