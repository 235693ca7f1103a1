"""What a board takes of caps and clocks, out of its facts."""

from __future__ import annotations

from services.node_agent.core.power import Bounds
from services.node_agent.gpu.port import BoardFacts


def bounds_of(facts: BoardFacts) -> Bounds:
    """See `Bounds`."""
    power = facts.power
    caps = (power.least_mw, power.most_mw, power.default_mw) if power else None
    return Bounds(caps, facts.sm_clocks_mhz)
