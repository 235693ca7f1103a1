"""How long a thing takes lately. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Of what was seen before, at each new step: some ten steps are remembered, which is a second or less of most engines.
KEPT: Final = 0.9


@dataclass(slots=True)
class Pace:
    """Seconds of one, as an exponentially fading mean over steps, each weighing as much as it did."""

    _seconds: float = 0.0
    _count: float = 0.0

    def saw(self, seconds: float, count: int) -> None:
        """Notes a step that did so many."""
        self._seconds = KEPT * self._seconds + seconds
        self._count = KEPT * self._count + count

    @property
    def each_s(self) -> float:
        """0 before anything was seen."""
        return self._seconds / self._count if self._count else 0.0
