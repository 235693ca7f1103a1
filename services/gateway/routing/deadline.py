"""The moment by which a request must be done."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tradewind.domain.errors import JobTimeout


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point of the monotonic clock.

    Attributes:
        at_s: the point, in seconds.
        limit_s: how long after the request's arrival that is, for messages.
    """

    at_s: float
    limit_s: float

    @classmethod
    def within(cls, limit_s: float) -> Deadline:
        """From now on."""
        return cls(time.monotonic() + limit_s, limit_s)

    def left_s(self) -> float:
        """Seconds left.

        Raises:
            JobTimeout: none.
        """
        left = self.at_s - time.monotonic()
        if left <= 0:
            raise JobTimeout(f"the request was not done within {self.limit_s:.0f} s; ask for fewer tokens or try again")
        return left
