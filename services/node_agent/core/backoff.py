"""How long to wait before the next try: doubling, with a limit and jitter. Pure; the draw is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """A pause that doubles with each failure in a row.

    Attributes:
        first_s: pause after the first failure.
        most_s: longest pause.
        jitter: share of the pause that is drawn, in [0, 1]: many that failed together do not come back together.
    """

    first_s: float
    most_s: float
    jitter: float = 0.5

    def pause_s(self, failures: int, draw: float) -> float:
        """The pause after so many failures in a row (at least 1).

        Args:
            failures: how many.
            draw: uniform in [0, 1).
        """
        whole = min(self.most_s, self.first_s * 2.0 ** min(max(failures, 1) - 1, 62))
        return whole * (1 - self.jitter * draw)


# A replica that fails at once would burn a core with loading; one that fails once is back soon.
RESTART = Backoff(first_s=1.0, most_s=60.0)
# The orchestrator's restart is noticed within seconds, and a thousand agents spread their return.
RECONNECT = Backoff(first_s=0.2, most_s=5.0, jitter=0.8)
