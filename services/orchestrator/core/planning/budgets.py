"""Power budgets of a plan: what running work that the plan does not move leaves of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.orchestrator.core.facts.blueprint import Replica
from services.orchestrator.core.facts.fleet import Budget, Node
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.planning.ground import Base, base_of
from services.orchestrator.core.planning.points import Point
from services.orchestrator.core.planning.weigh import Option


@dataclass(frozen=True, slots=True)
class Draw:
    """Mean active power of a replica at work on a device."""

    deployment_id: str
    node_id: str
    device_id: str
    power_mw: float


def draws_of(
    deployment: Deployment, options: tuple[Option, ...], points: tuple[Point, ...], replicas: tuple[Replica, ...]
) -> list[Draw]:
    """What replicas of a deployment draw at its demand, of which one takes no more than its capacity.

    Args:
        options: tell what a request takes; the dearest of a base counts.
        points: of what has no option the most power measured at work counts.
    """
    demand_per_s, request_mj = deployment.demand.compared_requests_per_s, dict[Base, float]()
    for option in options:
        energy_mj = option.shown.active_mw * option.shown.replicas / demand_per_s
        request_mj[option.base] = max(request_mj.get(option.base, 0.0), energy_mj)
    at_work_mw = {point.key[:4]: point.at_work_mw for point in points}
    capacities = [replica.capacity_requests_per_s for replica in replicas]
    found = []
    for replica, capacity_per_s in zip(replicas, capacities, strict=True):
        part = capacity_per_s / sum(capacities) if all(capacities) else 1.0 / len(replicas)
        rate_per_s, base = min(demand_per_s * part, capacity_per_s or math.inf), base_of(replica)
        power_mw = request_mj[base] * rate_per_s if base in request_mj else at_work_mw.get(base, 0.0)
        found.append(Draw(deployment.deployment_id, replica.node_id, replica.partition.device_id, power_mw))
    return found


class Budgets:
    """Limits of power, and what running deployments draw of them.

    Args:
        limits: the budgets.
        nodes: the fleet. Nodes that keep no work (lost, draining) draw what they idle at, whatever is planned.
        draws: of every replica at work.
    """

    def __init__(self, limits: tuple[Budget, ...], nodes: Iterable[Node], draws: Iterable[Draw]) -> None:
        self._limits = limits
        idle = [(n.node_id, d.device_id, d.idle_power_mw) for n in nodes if not n.keeps_work for d in n.devices]
        self._idle = _by_scope(idle if limits else ())
        mine: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
        for draw in draws:
            mine[draw.deployment_id].append((draw.node_id, draw.device_id, draw.power_mw))
        self._draws = {name: _by_scope(one) for name, one in mine.items()}

    def __bool__(self) -> bool:
        """Whether power is limited at all."""
        return bool(self._limits)

    @property
    def drawing(self) -> frozenset[str]:
        """Deployments at work."""
        return frozenset(self._draws)

    def beside(self, names: Iterable[str], raised: Budget | None = None) -> tuple[Budget, ...]:
        """What these deployments leave when they go on as they are; below 0 where they draw more than there is.

        Args:
            raised: stands in place of the budget of its scope.
        """
        draws = [self._idle, *(self._draws[name] for name in names if name in self._draws)]
        limits = (raised if raised and raised.scope == limit.scope else limit for limit in self._limits)
        return tuple(
            replace(limit, limit_mw=limit.limit_mw - sum(draw.get(limit.scope, 0.0) for draw in draws))
            for limit in limits
        )


def _by_scope(draws: Iterable[tuple[str, str, float]]) -> dict[str, float]:
    """Milliwatts by scope, of nodes' devices."""
    found: dict[str, float] = defaultdict(float)
    for node_id, device_id, drawn_mw in draws:
        for scope in ("site", f"node/{node_id}", f"device/{node_id}/{device_id}"):
            found[scope] += drawn_mw
    return found
