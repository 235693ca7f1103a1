"""The event queue of a run: what happens when, in an order that only the run itself decides."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[float, Any], None]


class Timeline:
    """Events by time; those of one moment in the order in which they were put in."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Handler, Any]] = []
        self._count = 0

    def at(self, when_s: float, handler: Handler, subject: Any = None) -> None:
        """`handler(when_s, subject)` shall be called then."""
        self._count += 1
        heappush(self._heap, (when_s, self._count, handler, subject))

    @property
    def next_s(self) -> float:
        """When the next event is; infinite when there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    def pop(self) -> None:
        """Lets the next event happen."""
        when_s, _, handler, subject = heappop(self._heap)
        handler(when_s, subject)
