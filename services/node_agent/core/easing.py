"""When a board's clock goes up and down: up at once, down after a while without need. Pure; the need is `governor`."""

from __future__ import annotations

from dataclasses import dataclass

from services.node_agent.core.governor import DWELL_S


@dataclass(frozen=True, slots=True)
class Easing:
    """A board's two clocks.

    Attributes:
        full_mhz: what it is locked at, or its highest.
        eased: whether the eased one is in force.
        changes: from one to the other so far.
    """

    full_mhz: int
    eased_mhz: int
    eased: bool
    changes: int = 0

    @property
    def slower(self) -> float:
        """How much longer everything takes at the eased clock than now, at most."""
        return 1.0 if self.eased else self.full_mhz / self.eased_mhz


def calm_since(before_s: float | None, needs_full: bool, now_s: float) -> float | None:
    """Since when a board has not needed its full clock; None when it does."""
    if needs_full:
        return None
    return now_s if before_s is None else before_s


def shall_ease(calm_since_s: float | None, now_s: float) -> bool:
    """Whether the eased clock shall be in force, once it is not."""
    return calm_since_s is not None and now_s - calm_since_s >= DWELL_S
