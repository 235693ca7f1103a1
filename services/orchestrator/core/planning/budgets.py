"""Power budgets of a plan: what running work that the plan does not move leaves of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from services.orchestrator.core.facts.blueprint import Replica
from services.orchestrator.core.facts.fleet import Budget, Node
from services.orchestrator.core.planning.ground import Base, base_of


class Budgets:
    """Limits of power, and what each running deployment draws of them.

    Args:
        limits: the budgets.
        nodes: the fleet. Nodes that keep no work (lost, draining) draw what they idle at, whatever is planned.
        running: replicas at work, by deployment.
        active_mw: mean active power of a replica of a deployment, by its base.
    """

    def __init__(
        self,
        limits: tuple[Budget, ...],
        nodes: Iterable[Node],
        running: Mapping[str, tuple[Replica, ...]],
        active_mw: Mapping[str, Mapping[Base, float]],
    ) -> None:
        self._limits = limits
        self._idle = _by_scope(
            (node.node_id, device.device_id, device.idle_power_mw)
            for node in nodes
            if limits and not node.keeps_work
            for device in node.devices
        )
        self._draws = {
            name: _by_scope(
                (r.node_id, r.partition.device_id, active_mw.get(name, {}).get(base_of(r), 0.0)) for r in replicas
            )
            for name, replicas in running.items()
            if limits
        }

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
