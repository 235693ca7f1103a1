"""The near future of one deployment's traffic, with its uncertainty. Modelled from what was seen, never a promise.

    level    the slow mean rate, and what the fast one stands above it by beyond noise
    season   × what this time of day brought before against what it brings in `LEAD_S` (after a day of history)
    trend    + the same rise once more: it goes on
    burst    + `BURST_Z` standard deviations of a window's arrivals, or of its work in requests with mean prompts,
             beyond the noise that either has when requests come independently

That noise itself is left out of the burst allowance: a replica's capacity (`capacity.py`) is reckoned under Poisson
arrivals already. Counts have the variance of their mean, and work, a compound Poisson sum, that times the mean square
over the squared mean of lengths (S. Ross, "Stochastic Processes", 1996, ch. 2.5). The index of dispersion follows Cox
and Lewis, "The Statistical Analysis of Series of Events" (1966), ch. 4.5: variance over mean of counts, 1 for Poisson.
For on/off traffic it is far above 1, so that a mean over pauses does not fool the provision: what requests met
(`Bursts.peaks`) is provisioned for even in a pause.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.adaptation.history import FAST_S, History
from services.orchestrator.core.facts.traffic import WINDOW_S

# How far ahead a provision must hold: loading and warming a replica takes up to a minute, its settling another.
LEAD_S: Final = 120.0
# Share of windows that may exceed the provision if deviations were normal: 0.13 %. Found over seeds of two workloads
# (ADR 87).
BURST_Z: Final = 3.0
# Standard deviations of the fast mean that are noise; what is beyond them is a rise.
RISE_Z: Final = 1.5
# The rhythm of yesterday moves today's level by this factor at most, so that a holiday does no harm.
MOST_SEASON: Final = 2.0
# A trend is not followed beyond doubling.
MOST_TREND: Final = 1.0


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
    slow, fast = history.slow.mean, history.fast.mean
    spread, noise = history.arrivals.spread.mean, slow * WINDOW_S
    excess = max(spread - noise, history.work.spread.mean - noise * history.prompts.scatter, 0.0)
    excess_per_s = math.sqrt(excess) / WINDOW_S
    season = _season(history, now_s)
    rise = _rise(fast, slow)
    level = (slow + rise) * season + min(rise, MOST_TREND * slow)
    burst = max(level + BURST_Z * excess_per_s, history.arrivals.peaks.mean, history.work.peaks.mean)
    return Forecast(
        mean_per_s=max(slow * season, 0.0),
        upper_per_s=burst if history.age_s > 0.0 else 0.0,
        prompt_tokens=history.prompts.mean,
        prompt_tokens_p95=history.prompts.p95,
        output_tokens=history.outputs.mean,
        output_tokens_p95=history.outputs.p95,
        dispersion=spread / (slow * WINDOW_S) if slow > 0.0 else 1.0,
        age_s=history.age_s,
    )


def _rise(fast: float, slow: float) -> float:
    """What the fast mean stands above the slow one by, beyond what noise explains."""
    # The fast mean of Poisson counts has the variance rate/(2·FAST_S); bursts beyond that are the burst allowance's.
    noise = math.sqrt(max(slow, fast / 4.0) / (2.0 * FAST_S))
    return max(fast - slow - RISE_Z * noise, 0.0)


def _season(history: History, now_s: float) -> float:
    now, ahead = history.season.rate(now_s), history.season.rate(now_s + LEAD_S)
    if now is None or ahead is None or now <= 0.0:
        return 1.0
    return min(max(ahead / now, 1.0 / MOST_SEASON), MOST_SEASON)
