"""Where requests go: the gateway's rule, least work for a replica's size, over the published routes."""

from __future__ import annotations

from collections.abc import Iterable

from services.simulator.engine.replica import Replica


class Router:
    """Routes of one deployment. A request that finds none waits here until there is one."""

    def __init__(self) -> None:
        self._routes: list[tuple[Replica, float]] = []
        self._turn = 0

    @property
    def ready(self) -> bool:
        """Whether there is anywhere to go."""
        return bool(self._routes)

    def publish(self, routes: Iterable[tuple[Replica, float]]) -> None:
        """The whole table: replicas with their weights, which are requests a second or places of the batch."""
        self._routes = sorted(routes, key=lambda route: route[0].replica_id)

    def choose(self) -> Replica | None:
        """The replica that would be least loaded with one more request; of equal ones each in turn."""
        routes = self._routes
        if not routes:
            return None
        self._turn += 1
        best, least, count = None, float("inf"), len(routes)
        for place in range(count):
            replica, weight = routes[(place + self._turn) % count]
            load = (replica.in_hand + 1) / weight
            if load < least:
                best, least = replica, load
        return best

    def forget(self, replica: Replica) -> None:
        """One that ended is not chosen again, also before the next table."""
        self._routes = [route for route in self._routes if route[0] is not replica]
