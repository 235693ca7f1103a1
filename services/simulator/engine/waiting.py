"""Requests of one replica that wait for a place, in the order of the engine's own rule (`node_agent/core/line.py`)."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from heapq import heappop, heappush, merge
from math import isinf
from operator import attrgetter

from services.node_agent.core.line import Waiting, first_in_line, is_late
from services.simulator.engine.request import Request

_number = attrgetter("number")


class WaitingRoom:
    """Oldest first, as far as the rule does not say otherwise.

    Those that are late as reckoned once are kept apart for good, so that under overload the rule looks at those only
    that can be in time; the engine reckons each anew. Who is refused is the replica's business.

    Args:
        limit_s: what a first token may take; infinite for first come, first served.
    """

    __slots__ = ("_late", "_limit_s", "_line")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._line: list[Request] = []
        self._late: list[tuple[int, Request]] = []

    def __len__(self) -> int:
        return len(self._line) + len(self._late)

    def __iter__(self) -> Iterator[Request]:
        return merge(self._line, (request for _, request in sorted(self._late, key=lambda one: one[0])), key=_number)

    @property
    def oldest(self) -> Request | None:
        """The one that came first; None when nobody waits."""
        heads = [*self._line[:1], *(request for _, request in self._late[:1])]
        return min(heads, key=_number, default=None)

    def add(self, request: Request) -> None:
        """One more."""
        insort(self._line, request, key=_number)

    def remove(self, request: Request) -> None:
        """The one that was `first`."""
        if self._late and self._late[0][1] is request:
            heappop(self._late)
        else:
            self._line.remove(request)

    def clear(self) -> None:
        """Nobody waits."""
        self._line.clear()
        self._late.clear()

    def first(self, now_s: float, takes_s: Callable[[Request], float]) -> Request:
        """Who is next, of at least one.

        Args:
            takes_s: how long a prompt keeps the device.
        """
        if isinf(self._limit_s):
            return self._line[0]
        line = []
        for request in list(self._line):
            one = Waiting(request.arrival_s, takes_s(request))
            if is_late(one, self._limit_s, now_s):
                self._line.remove(request)
                heappush(self._late, (request.number, request))
            else:
                line.append((request, one))
        if self._late:
            request = self._late[0][1]
            insort(line, (request, Waiting(request.arrival_s, takes_s(request))), key=lambda pair: pair[0].number)
        return line[first_in_line([one for _, one in line], self._limit_s, now_s)][0]
