"""Latencies of requests finished in the last minute. Memory is bounded; old ones fall out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 60.0
# A percentile of more says nothing more.
MAX_SAMPLES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Stats:
    """A distribution in milliseconds; zeros with no samples."""

    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    mean_ms: float = 0.0
    samples: int = 0


def stats_of(values_ms: Sequence[float]) -> Stats:
    """The distribution of some values; percentiles by linear interpolation between order statistics."""
    if not values_ms:
        return Stats()
    ordered = sorted(values_ms)
    mean = sum(ordered) / len(ordered)
    return Stats(_at(ordered, 0.50), _at(ordered, 0.95), _at(ordered, 0.99), mean, len(ordered))


class Latencies:
    """Keeps what was finished.

    Args:
        now_s: monotonic clock.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._ttft: deque[tuple[float, float]] = deque(maxlen=MAX_SAMPLES)
        self._tpot: deque[tuple[float, float]] = deque(maxlen=MAX_SAMPLES)
        self.generated_tokens = 0

    def finished(self, ttft_s: float, tpot_s: float | None, tokens: int) -> None:
        """Notes a finished request; `tpot_s` is None when it had one token only."""
        now_s = self._now_s()
        self._ttft.append((now_s, ttft_s * 1e3))
        if tpot_s is not None:
            self._tpot.append((now_s, tpot_s * 1e3))
        self.generated_tokens += tokens

    def ttft(self) -> Stats:
        """Of the last minute."""
        return self._recent(self._ttft)

    def tpot(self) -> Stats:
        """Of the last minute."""
        return self._recent(self._tpot)

    def _recent(self, samples: deque[tuple[float, float]]) -> Stats:
        oldest_s = self._now_s() - WINDOW_S
        while samples and samples[0][0] < oldest_s:
            samples.popleft()
        return stats_of([value for _, value in samples])


def _at(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
