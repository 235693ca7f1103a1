"""The busiest ten seconds of each of the last minutes: what capacity must meet, whatever the distribution. Pure.

A queue of ten seconds is beyond most limits on TTFT, one of a single window is not. Rates are of work: a window whose
prompts are longer than usual counts as so many more requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.facts.traffic import Window

# One crest is kept for each minute, so that one crowded minute is one crest, however long its crowd stayed.
CREST_S: Final = 60.0
# A quarter of an hour: several of the pauses between bursts, and far more than a board takes to come back.
CRESTS: Final = 15


@dataclass(frozen=True, slots=True)
class Crests:
    """Crests of the last minutes.

    Attributes:
        rates: requests a second, oldest first; the last is that of the minute under way.
        since_s: when that minute began.
        before: rate of the newest window.
    """

    rates: tuple[float, ...] = ()
    since_s: float = 0.0
    before: float = 0.0

    def after(self, window: Window, usual_prompt_tokens: float) -> Crests:
        """With one window more."""
        work = float(window.arrivals)
        if usual_prompt_tokens > 0.0:
            work = max(work, window.prompt_tokens / usual_prompt_tokens)
        rate = work / window.length_s
        both = (rate + self.before) / 2.0
        if not self.rates or window.start_s >= self.since_s + CREST_S:
            return Crests((*self.rates[1 - CRESTS :], both), window.start_s, rate)
        return Crests((*self.rates[:-1], max(self.rates[-1], both)), self.since_s, rate)

    @property
    def lately(self) -> float:
        """The higher of the last two minutes' crests; 0 when nothing was seen."""
        return max(self.rates[-2:], default=0.0)

    def high(self, rank: int) -> float:
        """The highest crest but `rank`; 0 when nothing was seen."""
        ordered = sorted(self.rates, reverse=True)
        return ordered[min(rank, len(ordered) - 1)] if ordered else 0.0


NO_CRESTS: Final = Crests()
