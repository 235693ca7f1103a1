"""Power budgets of a plan: what running work that the plan does not move leaves of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from services.orchestrator.core.facts.blueprint import Replica
from services.orchestrator.core.facts.fleet import Budget
from services.orchestrator.core.planning.ground import Base, base_of


class Budgets:
    """Limits of power, and what each running deployment draws of them.

    Args:
        limits: the budgets.
        running: replicas at work, by deployment.
        active_mw: mean active power of a replica of a deployment, by its base.
    """

    def __init__(
        self,
        limits: tuple[Budget, ...],
        running: Mapping[str, tuple[Replica, ...]],
        active_mw: Mapping[str, Mapping[Base, float]],
    ) -> None:
        self._limits = limits
        self._draws = {
            name: _by_scope(replicas, active_mw.get(name, {})) for name, replicas in running.items() if limits
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
        limits = tuple(raised if raised and raised.scope == limit.scope else limit for limit in self._limits)
        draws = [self._draws[name] for name in names if name in self._draws]
        if not draws:
            return limits
        return tuple(
            replace(budget, limit_mw=budget.limit_mw - sum(draw.get(budget.scope, 0.0) for draw in draws))
            for budget in limits
        )


def _by_scope(replicas: Iterable[Replica], active_mw: Mapping[Base, float]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for replica in replicas:
        node_id, device_id = replica.node_id, replica.partition.device_id
        for scope in ("site", f"node/{node_id}", f"device/{node_id}/{device_id}"):
            found[scope] += active_mw.get(base_of(replica), 0.0)
    return found
