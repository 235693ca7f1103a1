"""The two costs of a replica whose board's clock eases, and which of them it pays: the node agent's own rule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from services.node_agent.core.easing import calm_since, shall_ease
from services.node_agent.core.governor import DWELL_S, Limits, Work, may_ease
from services.simulator.engine.cost import StepCost

# The agent looks every 0.1 s and the board takes about as long to follow: assumed, never measured here.
RISE_S: Final = 0.2
# Chunks of a prompt, with their decode steps, between two looks.
LOOK_CHUNKS: Final = 2


@dataclass(frozen=True, slots=True)
class Easing:
    """What a replica pays at the eased clock, and what its requests may take.

    Attributes:
        slower: full clock over eased.
    """

    cost: StepCost
    slower: float
    limits: Limits


class Clocks:
    """Begins eased, since nothing is in hand.

    Attributes:
        cost: paid now.
        rises: how often it went up.
    """

    __slots__ = ("_calm_since_s", "_easing", "_full", "cost", "rises")

    def __init__(self, full: StepCost, easing: Easing | None) -> None:
        self._full, self._easing = full, easing
        self.cost = easing.cost if easing else full
        self.rises = 0
        self._calm_since_s: float | None = None

    @property
    def eases(self) -> bool:
        """Whether there is anything to choose."""
        return self._easing is not None

    @property
    def eases_at_s(self) -> float:
        """When it eases if there is no need until then; infinite while it has eased, or there is need."""
        easing, calm_s = self._easing, self._calm_since_s
        return math.inf if easing is None or calm_s is None or self.cost is easing.cost else calm_s + DWELL_S

    def now(self, now_s: float) -> StepCost:
        """What is paid now: eased since, if there was no need for long enough."""
        if self._easing is not None and shall_ease(self._calm_since_s, now_s):
            self.cost = self._easing.cost
        return self.cost

    def follow(self, work: Work, now_s: float) -> float:
        """Chooses for what is in hand. Returns the seconds that are lost while the clock rises."""
        easing = self._easing
        if easing is None:
            return 0.0
        eased = self.now(now_s) is easing.cost
        needs_full = not may_ease(work, easing.limits, 1.0 if eased else easing.slower)
        self._calm_since_s = calm_since(self._calm_since_s, needs_full, now_s)
        if eased and needs_full:
            self.cost = self._full
            self.rises += 1
            return RISE_S * (1.0 - 1.0 / easing.slower)
        return 0.0
