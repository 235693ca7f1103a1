"""The two costs of a replica whose board's clock eases, and which of them it pays: the node agent's own rule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from services.node_agent.core.governor import DWELL_S, Limits, Work, may_ease
from services.simulator.engine.cost import StepCost

# The agent looks every 0.1 s and the board takes about as long to follow: assumed, never measured here.
RISE_S: Final = 0.2


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
        eases_at_s: when it may ease if there is no need until then; infinite while that is not so.
        rises: how often it went up.
    """

    __slots__ = ("_easing", "_full", "cost", "eases_at_s", "rises")

    def __init__(self, full: StepCost, easing: Easing | None) -> None:
        self._full, self._easing = full, easing
        self.cost = easing.cost if easing else full
        self.eases_at_s, self.rises = math.inf, 0

    @property
    def eases(self) -> bool:
        """Whether there is anything to choose."""
        return self._easing is not None

    def follow(self, work: Work, now_s: float) -> float:
        """Chooses for what is in hand. Returns the seconds that are lost while the clock rises."""
        easing = self._easing
        if easing is None:
            return 0.0
        eased = self.cost is easing.cost
        if may_ease(work, easing.limits, 1.0 if eased else easing.slower):
            if eased:
                return 0.0
            if self.eases_at_s == math.inf:
                self.eases_at_s = now_s + DWELL_S
            if now_s >= self.eases_at_s or not (work.prompt_tokens or work.step_s):
                self.cost, self.eases_at_s = easing.cost, math.inf
            return 0.0
        self.eases_at_s = math.inf
        if not eased:
            return 0.0
        self.cost = self._full
        self.rises += 1
        return RISE_S * (1.0 - 1.0 / easing.slower)
