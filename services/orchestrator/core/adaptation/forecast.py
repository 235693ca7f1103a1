"""The near future of one deployment's traffic, with its uncertainty. Modelled from what was seen, never a promise.

    level    the mean over the longest time that no shorter one contradicts
    season   × what this time of day brought before against what it brings in `LEAD_S` (after a day of history)
    trend    + what a rise brings more until then, when it goes on
    burst    + so much that the share of work beyond it is `BEYOND_SHARE`

The level follows Lepski's method ("On a problem of adaptive estimation in Gaussian white noise", Theory Probab. Appl.
35, 1991): noise moves it as little as a mean over half an hour, and a change of the load moves it once a short mean
shows it beyond the noise that there was, its own first windows among it.

Of a load with mean m and deviation s, normally spread, the share L(z)·s/m lies beyond m + z·s, L being the unit normal
loss; prompts in line make those late and no others (`node_agent/core/line.py`). The noise of independent requests is
left out: a replica's capacity (`capacity.py`) is reckoned under Poisson arrivals already. Counts have the variance of
their mean, and work, a compound Poisson sum, that times the mean square over the squared mean of lengths (S. Ross,
"Stochastic Processes", 1996, ch. 2.5). The index of dispersion follows Cox and Lewis, "The Statistical Analysis of
Series of Events" (1966), ch. 4.5: variance over mean of counts, 1 for Poisson. For on/off traffic it is far above 1, so
that a mean over pauses does not fool the provision: what requests met (`Bursts.peaks`) is provisioned for in a pause.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.adaptation.history import RATES_S, Bursts, History
from services.orchestrator.core.facts.traffic import WINDOW_S

# How far ahead a provision must hold: loading and warming a replica takes up to a minute, its settling another.
LEAD_S: Final = 120.0
# Share of work that may lie beyond the provision: a tenth of what a p99 allows, since a normal spread tells little of
# what bursts do at their worst.
BEYOND_SHARE: Final = 0.001
# Standard deviations by which a shorter mean has to contradict a longer one.
LEVEL_Z: Final = 2.5
# The rhythm of yesterday moves today's level by this factor at most, so that a holiday does no harm.
MOST_SEASON: Final = 2.0
# Of the difference to the mean over ten minutes: what goes on so steadily rises by this part of it until `LEAD_S`.
TREND_OVER: Final = 2
TREND_SHARE: Final = (LEAD_S + RATES_S[0]) / RATES_S[TREND_OVER]
# Halvings of the interval in which deviations are looked for.
_MOST_Z, _HALVINGS = 5.0, 30


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is to be expected until `LEAD_S` from now.

    Attributes:
        mean_per_s: requests a second; weighs energy.
        upper_per_s: the rate that is provisioned for.
        dispersion: variance over mean of a window's arrivals; 1 is Poisson.
        age_s: how much history is behind it.
    """

    mean_per_s: float
    upper_per_s: float
    prompt_tokens: float
    prompt_tokens_p95: float
    output_tokens: float
    output_tokens_p95: float
    dispersion: float
    age_s: float


def forecast(history: History, now_s: float) -> Forecast:
    """The forecast that a history gives; zeros of an empty one."""
    dispersion = _dispersion(history)
    level = _level(history, dispersion)
    trend = TREND_SHARE * max(level - history.rates[TREND_OVER].mean, 0.0)
    level *= _season(history, now_s)
    rising = level + trend
    upper = max(
        _upper(rising, history, history.arrivals, 1.0), _upper(rising, history, history.work, history.prompts.scatter)
    )
    return Forecast(
        mean_per_s=level,
        upper_per_s=upper if history.age_s > 0.0 else 0.0,
        prompt_tokens=history.prompts.mean,
        prompt_tokens_p95=history.prompts.p95,
        output_tokens=history.outputs.mean,
        output_tokens_p95=history.outputs.p95,
        dispersion=dispersion,
        age_s=history.age_s,
    )


def _dispersion(history: History) -> float:
    noise = history.rates[-1].mean * WINDOW_S
    return max(history.arrivals.spread.mean / noise, 1.0) if noise > 0.0 else 1.0


def _level(history: History, dispersion: float) -> float:
    level = history.rates[-1].mean
    for over_s, rate in reversed(tuple(zip(RATES_S, history.rates, strict=True))[:-1]):
        # A fading mean of counts has this variance; in a pause, that of a quarter of the load that was there.
        margin = LEVEL_Z * math.sqrt(dispersion * max(rate.mean, level / 4.0) / (2.0 * over_s))
        level = min(max(level, rate.mean - margin), rate.mean + margin)
    return level


def _upper(level: float, history: History, bursts: Bursts, scatter: float) -> float:
    noise = history.rates[-1].mean * WINDOW_S * scatter
    excess_per_s = math.sqrt(max(bursts.spread.mean - noise, 0.0)) / WINDOW_S
    return max(
        level + deviations(BEYOND_SHARE, excess_per_s / level) * excess_per_s if level > 0.0 else 0.0, bursts.peaks.mean
    )


def deviations(beyond_share: float, spread_share: float) -> float:
    """Standard deviations above a normal load's mean beyond which so small a share of the load lies.

    Args:
        beyond_share: of the load.
        spread_share: standard deviation over mean.
    """
    low, high = 0.0, _MOST_Z
    for _ in range(_HALVINGS):
        z = (low + high) / 2.0
        loss = math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi) - z * math.erfc(z / math.sqrt(2.0)) / 2.0
        low, high = (z, high) if loss * spread_share > beyond_share else (low, z)
    return low


def _season(history: History, now_s: float) -> float:
    now, ahead = history.season.rate(now_s), history.season.rate(now_s + LEAD_S)
    if now is None or ahead is None or now <= 0.0:
        return 1.0
    return min(max(ahead / now, 1.0 / MOST_SEASON), MOST_SEASON)
