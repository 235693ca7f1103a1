"""What is remembered of one deployment's traffic: a few means that forget, lengths, and the rhythm of its days. Pure.

It has a fixed size however long it grows. Windows are taken in once, in order; repeats and older ones change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.adaptation.fading import NOTHING, Faded
from services.orchestrator.core.facts.traffic import Window, p95_of
from services.orchestrator.core.facts.wish import LatencyLimit

# Time constants of the rate's means. In the first a surge shows within two windows; the last one is what a load is made
# of once bursts are over, and changes too little for boards to be woken and sent to sleep by noise.
RATES_S: Final = (30.0, 120.0, 600.0, 1800.0)
# Bursts are deviations from this mean: a lasting change of the load, or the first traffic ever, is none after 40 s.
# With two minutes a ramp was held for bursts over half an hour, and provisioned for beyond its end.
MIDDLE_S: Final = 40.0
# Bursts are remembered over several of the pauses between them (four minutes in on/off code completion traffic).
BURST_S: Final = 1800.0
# Lengths change with the users, over hours; half an hour follows that and averages hundreds of requests.
LENGTHS_S: Final = 1800.0
# Misses are remembered over several bursts and pauses: a calm that keeps every limit says nothing of the next burst.
MISSES_S: Final = 1800.0
DAY_S: Final = 86_400.0
# A quarter of an hour: rates of a day are smooth on that scale.
SLOTS: Final = 96
# Weight of the newest day against those before.
NEW_DAY_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Lengths:
    """Moments of token counts that forget."""

    values: Faded = NOTHING
    squares: Faded = NOTHING

    def after(self, total: float, squares: float, count: int, length_s: float) -> Lengths:
        """With the requests of one window; a window without any changes nothing."""
        if count <= 0:
            return self
        keep = math.exp(-length_s / LENGTHS_S)
        return Lengths(
            self.values.plus(total / count, float(count), keep), self.squares.plus(squares / count, float(count), keep)
        )

    @property
    def mean(self) -> float:
        """Mean tokens; 0 when nothing was seen."""
        return self.values.mean

    @property
    def p95(self) -> float:
        """95th percentile of tokens."""
        return p95_of(self.values.mean, self.squares.mean, 1.0)

    @property
    def scatter(self) -> float:
        """Mean square over squared mean: 1 of equal lengths, 2 of exponential ones."""
        return max(self.squares.mean / self.values.mean**2, 1.0) if self.values.mean > 0.0 else 1.0


NO_LENGTHS: Final = Lengths()


@dataclass(frozen=True, slots=True)
class Bursts:
    """How unevenly something comes: arrivals, or their work in requests with mean prompts.

    Attributes:
        middle: its rate a second.
        spread: squared deviation of a window's amount from that.
        peaks: rate a second in busy windows: a mean over requests, not over time, of what each met.
    """

    middle: Faded = NOTHING
    spread: Faded = NOTHING
    peaks: Faded = NOTHING

    def after(self, amount: float, arrivals: int, length_s: float) -> Bursts:
        """With the amount and the requests of one window."""
        rate = amount / length_s
        middle = self.middle.after(rate, length_s, MIDDLE_S)
        spread = self.spread.after((amount - middle.mean * length_s) ** 2, length_s, BURST_S)
        return Bursts(middle, spread, self.peaks.plus(rate, float(arrivals), math.exp(-length_s / BURST_S)))


NO_BURSTS: Final = Bursts()


@dataclass(frozen=True, slots=True)
class Season:
    """Mean rates by time of day.

    Attributes:
        rates: requests a second by slot; negative when not known yet.
        slot: the slot being filled; `sum_arrivals` in `sum_s` seconds of it.
    """

    rates: tuple[float, ...] = (-1.0,) * SLOTS
    slot: int = -1
    sum_arrivals: float = 0.0
    sum_s: float = 0.0

    def after(self, at_s: float, arrivals: int, length_s: float) -> Season:
        """With one window that began at `at_s`."""
        slot = slot_of(at_s)
        if slot == self.slot:
            return replace(self, sum_arrivals=self.sum_arrivals + arrivals, sum_s=self.sum_s + length_s)
        return Season(self._closed(), slot, float(arrivals), length_s)

    def rate(self, at_s: float) -> float | None:
        """Requests a second to be expected at a time of day, None when no day was seen there yet."""
        known = self.rates[slot_of(at_s)]
        return known if known >= 0.0 else None

    def later(self, shift_s: float) -> Season:
        """The same rhythm on a clock that is ahead by so much, to the nearest slot; the slot being filled is closed."""
        rates, slots = self._closed(), round(shift_s / (DAY_S / SLOTS))
        return Season(tuple(rates[(n - slots) % SLOTS] for n in range(SLOTS)))

    def _closed(self) -> tuple[float, ...]:
        # A slot of which less than half was seen says little of it.
        if self.slot < 0 or self.sum_s < DAY_S / SLOTS / 2.0:
            return self.rates
        rate, before = self.sum_arrivals / self.sum_s, self.rates[self.slot]
        mixed = rate if before < 0.0 else before + NEW_DAY_SHARE * (rate - before)
        return (*self.rates[: self.slot], mixed, *self.rates[self.slot + 1 :])


NO_SEASON: Final = Season()


@dataclass(frozen=True, slots=True)
class History:
    """One deployment's traffic as remembered.

    Attributes:
        since_s: when the first window began; `seen_to_s` when the newest ended.
        rates: requests a second, as means over each of `RATES_S`.
        arrivals, work: bursts of requests, and of their work in requests with prompts of mean length.
        limits: what the misses are misses of; see `judged_by`.
        ttft_missed, tpot_missed, e2e_missed: share of judged requests beyond their limit; the weights are numbers of
            requests.
        idle_since_s: end of the last window in which anything was asked or at work.
    """

    since_s: float = 0.0
    seen_to_s: float = -math.inf
    rates: tuple[Faded, ...] = (NOTHING,) * len(RATES_S)
    arrivals: Bursts = NO_BURSTS
    work: Bursts = NO_BURSTS
    prompts: Lengths = NO_LENGTHS
    outputs: Lengths = NO_LENGTHS
    season: Season = NO_SEASON
    limits: tuple[LatencyLimit, ...] = ()
    ttft_missed: Faded = NOTHING
    tpot_missed: Faded = NOTHING
    e2e_missed: Faded = NOTHING
    idle_since_s: float = 0.0

    @property
    def age_s(self) -> float:
        """How long it reaches back; 0 of nothing."""
        return max(self.seen_to_s - self.since_s, 0.0)


def absorb(history: History, windows: Iterable[Window]) -> History:
    """The history with what is new of these windows, oldest first."""
    for window in windows:
        # Half a window of tolerance: clocks of gateways and ours round differently.
        if window.start_s >= history.seen_to_s - window.length_s / 2.0:
            history = _after(history, window)
    return history


def judged_by(history: History, limits: tuple[LatencyLimit, ...]) -> History:
    """The history of a deployment under these limits: misses of other ones say nothing of them and are forgotten."""
    if history.limits == limits:
        return history
    return replace(history, limits=limits, ttft_missed=NOTHING, tpot_missed=NOTHING, e2e_missed=NOTHING)


def slot_of(at_s: float) -> int:
    """The slot of the day that a time is in."""
    return int(at_s % DAY_S / DAY_S * SLOTS) % SLOTS


def _work(history: History, window: Window) -> float:
    """A window's work in requests with prompts of mean length.

    Where prompts differ by a factor of a hundred, a few long ones together break limits as many requests do.
    """
    mean = history.prompts.mean
    return window.prompt_tokens / mean if mean > 0.0 else float(window.arrivals)


def _after(history: History, window: Window) -> History:
    first = history.seen_to_s == -math.inf
    length_s, rate = window.length_s, window.arrivals / window.length_s
    busy = window.arrivals > 0 or window.queued > 0 or window.at_work > 0
    return History(
        since_s=window.start_s if first else history.since_s,
        seen_to_s=window.end_s,
        rates=tuple(mean.after(rate, length_s, over_s) for mean, over_s in zip(history.rates, RATES_S, strict=True)),
        arrivals=history.arrivals.after(float(window.arrivals), window.arrivals, length_s),
        work=history.work.after(_work(history, window), window.arrivals, length_s),
        prompts=history.prompts.after(window.prompt_tokens, window.prompt_squares, window.arrivals, length_s),
        outputs=history.outputs.after(window.output_tokens, window.output_squares, window.finished, length_s),
        season=history.season.after(window.start_s, window.arrivals, length_s),
        limits=history.limits,
        ttft_missed=_missed(history.ttft_missed, window, window.ttft_within),
        tpot_missed=_missed(history.tpot_missed, window, window.tpot_within),
        e2e_missed=_missed(history.e2e_missed, window, window.e2e_within),
        idle_since_s=window.end_s if busy or first else history.idle_since_s,
    )


def _missed(before: Faded, window: Window, within: int) -> Faded:
    total = window.judged + window.lost
    share = 1.0 - within / total if total else 0.0
    return before.plus(share, float(total), math.exp(-window.length_s / MISSES_S))
