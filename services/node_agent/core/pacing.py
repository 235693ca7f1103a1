"""When the next decode step has to begin: as late as the pace of its sequences allows, so that more share it. Pure.

The energy of a token falls with the batch, and nobody asked for tokens faster than the limit. Steps begin a pace apart,
so that more requests are at work together; where a sequence is behind (its first token came early in a pause, a prompt
got between), the step begins sooner, at once if need be. Prompts are taken in between the steps. The simulator paces by
the same class.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import Final

# Of sequences that are gone so many are kept, beside as many as there are: they are forgotten in passing otherwise.
MOST_GONE: Final = 64


class Pacer:
    """Keeps for each decoding sequence when its next token is due.

    A sequence whose first token came at t gets its kth token after it by t + k·pace. All sequences get one of each
    step, so that what is due first stays first: t - pace·(steps made by then) is kept once for each.

    Args:
        pace_s: seconds from token to token; 0 for as soon as they can come.
    """

    __slots__ = ("_began_s", "_due", "_pace_s", "_present", "_steps")

    def __init__(self, pace_s: float = 0.0) -> None:
        self._pace_s, self._steps, self._began_s = pace_s, 0, math.inf
        self._due: list[tuple[float, int]] = []
        self._present: set[int] = set()

    @property
    def pace_s(self) -> float:
        """Seconds from token to token; 0 without."""
        return self._pace_s

    def repace(self, pace_s: float, now_s: float) -> None:
        """Another pace from now on; nobody is late by the old one."""
        if pace_s == self._pace_s:
            return
        self._pace_s = pace_s
        self._due = [(now_s - pace_s * self._steps, sequence_id) for sequence_id in self._present]
        heapify(self._due)

    def joins(self, sequence_id: int, now_s: float) -> None:
        """A sequence had its first token."""
        self._present.add(sequence_id)
        if len(self._due) > 2 * len(self._present) + MOST_GONE:
            self._due = [one for one in self._due if one[1] in self._present]
            heapify(self._due)
        heappush(self._due, (now_s - self._pace_s * self._steps, sequence_id))

    def leaves(self, sequence_id: int) -> None:
        """A sequence decodes no more; one that never did changes nothing."""
        self._present.discard(sequence_id)
        if not self._present:
            self._due.clear()
            self._began_s = math.inf

    def stepped(self, began_s: float, steps: int = 1) -> None:
        """Every sequence got so many tokens, the last one by a step that began then."""
        self._steps += steps
        self._began_s = began_s

    def wait_s(self, step_s: float, now_s: float) -> float:
        """How long the next step may wait: until a pace after the last one, and no sequence's token is late by it.

        Args:
            step_s: what a step takes.

        Returns:
            Below 0 by as much as it is late. Infinite when nothing decodes, 0 without a pace.
        """
        while self._due and self._due[0][1] not in self._present:
            heappop(self._due)
        if not self._due:
            return math.inf
        if not self._pace_s:
            return 0.0
        due_s = self._due[0][0] + (self._steps + 1) * self._pace_s - step_s
        return min(due_s, self._began_s + self._pace_s) - now_s
