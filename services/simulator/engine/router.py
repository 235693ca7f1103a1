"""Where requests go: the gateway's own choice (`services/gateway/core/choice.py`) over the published routes."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from services.gateway.core.choice import Place, pick
from services.gateway.limits import QUEUED_PER_PLACE
from services.orchestrator.core.rollout.fills import Fill
from services.simulator.engine.replica import Replica

Route = tuple[Replica, float, Fill]


class Router:
    """Routes of one deployment.

    Attributes:
        capacity: most requests that its replicas may have at once; more are refused before any is asked.
    """

    def __init__(self) -> None:
        self._routes: list[Route] = []
        self._places: list[Place] = []
        self._turn = self.capacity = 0

    @property
    def ready(self) -> bool:
        """Whether there is anywhere to go."""
        return bool(self._routes)

    def publish(self, routes: Iterable[Route]) -> None:
        """The whole table: replicas with their size (places of the batch times weight) and how far they are filled."""
        self._routes = sorted(routes, key=lambda route: (route[2].rank, route[0].replica_id))
        self._places = [_place(*route) for route in self._routes]
        self.capacity = sum(replica.batch_limit for replica, _, _ in self._routes) * (1 + QUEUED_PER_PLACE)

    def choose(self, tokens: int, refused: Collection[Replica] = ()) -> Replica | None:
        """The replica that gets the next request.

        Args:
            tokens: of its prompt.
            refused: replicas that would not have it.
        """
        routes = self._routes
        if refused:
            left = [route for route in routes if route[0] not in refused]
            self._turn += 1
            return left[pick([_place(*route) for route in left], self._turn, tokens)][0] if left else None
        if not routes:
            return None
        self._turn += 1
        places = self._places
        for i, (replica, size, fill) in enumerate(routes):
            _, at_work, unanswered, _, _ = places[i]
            if at_work != replica.in_hand or unanswered != replica.unanswered:
                places[i] = _place(replica, size, fill)
        return routes[pick(places, self._turn, tokens)][0]

    def forget(self, replica: Replica) -> None:
        """One that ended is not chosen again, also before the next table."""
        self.publish([route for route in self._routes if route[0] is not replica])


def _place(replica: Replica, size: float, fill: Fill) -> Place:
    return Place(size, replica.in_hand, replica.unanswered, fill.sequences, fill.tokens)
