"""Numbers of replicas that a failed trial holds a deployment to for a while. Pure.

A change of how many replicas there are, or on how many nodes, names no operating point that could be given up. So what
took it back is a hold: at least as many as before, or at most as many. Danger goes before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.orchestrator.core.facts.wish import Deployment, Spread


@dataclass(frozen=True, slots=True)
class Hold:
    """What one deployment is held to.

    Attributes:
        reason: in words, with figures.
        until_s: it is over then.
        least: replicas at least; 0 for no such floor. `nodes` the same.
        most: replicas at most; 0 for no such ceiling.
        up_to_per_s: a ceiling is none for a demand above this.
        fleet: nodes that took work when it began; with fewer it is over.
    """

    deployment_id: str
    reason: str
    until_s: float
    least: int = 0
    nodes: int = 0
    most: int = 0
    up_to_per_s: float = 0.0
    fleet: int = 0


def held_to(wish: Deployment, hold: Hold | None, *, alarmed: bool) -> Deployment:
    """The wish as it is planned for under a hold; one in danger may have as many replicas as it needs."""
    if hold is None:
        return wish
    least = min(hold.least, wish.max_replicas) if wish.max_replicas else hold.least
    if least > wish.min_replicas:
        wish = replace(wish, min_replicas=least)
    if hold.nodes > 1 and wish.spread is None:
        wish = replace(wish, spread=Spread("node", hold.nodes))
    if hold.most and not alarmed and wish.demand.requests_per_s <= hold.up_to_per_s:
        most = max(hold.most, wish.min_replicas)
        wish = replace(wish, max_replicas=min(most, wish.max_replicas) if wish.max_replicas else most)
    return wish
