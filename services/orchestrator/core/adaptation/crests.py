"""The busiest ten seconds of each of the last minutes: what capacity must meet, whatever the distribution. Pure.

A queue of ten seconds is beyond most limits on TTFT, one of a single window is not. Rates are of work: a window whose
prompts are longer than usual counts as more requests: half of a request's work is taken to be its prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.facts.traffic import WINDOW_S, Window

# A crest is the mean of two windows.
CREST_LENGTH_S: Final = 2.0 * WINDOW_S
# One crest is kept for each minute, so that one crowded minute is one crest, however long its crowd stayed.
CREST_S: Final = 60.0
# Twenty minutes: several of the pauses between bursts, and far more than a board takes to come back.
CRESTS: Final = 20


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
            work = max(work, (work + window.prompt_tokens / usual_prompt_tokens) / 2.0)
        rate = work / window.length_s
        both = (rate + self.before) / 2.0
        if not self.rates or window.start_s >= self.since_s + CREST_S:
            return Crests((*self.rates[1 - CRESTS :], both), window.start_s, rate)
        return Crests((*self.rates[:-1], max(self.rates[-1], both)), self.since_s, rate)

    @property
    def lately(self) -> float:
        """The higher of the last two minutes' crests; 0 when nothing was seen."""
        return max(self.rates[-2:], default=0.0)

    @property
    def high(self) -> float:
        """The highest crest; 0 when nothing was seen."""
        return max(self.rates, default=0.0)


NO_CRESTS: Final = Crests()
