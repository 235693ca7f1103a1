"""Leases on clocks and caps: a setting lives only as long as whoever asked for it says so again. Pure.

When a lease ends the board goes back to its default, but for a safety cap: the lower value stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.node_agent.core.power import Setting

# An agent that is restarted, or a leader that changes, is back within this time; a dead one's cap goes after it.
LEASE_S: Final = 30.0
# Longer leases would outlive what a dead-man rule is for.
LONGEST_LEASE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Lease:
    """A hold on one board's setting.

    Attributes:
        uuid: of the board.
        setting: admitted.
        ends_at_s: by the clock that runs since boot.
        safety_cap_mw: stays after the lease; None when there is none.
    """

    uuid: str
    setting: Setting
    ends_at_s: float
    safety_cap_mw: int | None = None


def ended(leases: Iterable[Lease], now_s: float) -> tuple[Lease, ...]:
    """Leases that are over."""
    return tuple(lease for lease in leases if lease.ends_at_s <= now_s)


def afterwards(lease: Lease) -> Setting:
    """The setting that a board goes back to."""
    return Setting(lease.safety_cap_mw, None)
