"""Whether a deployment kept its latency limits lately: shares of requests, and how certain that is. Pure.

A share of few requests is no verdict. The bounds are Wilson's score interval (E. B. Wilson, "Probable inference, the
law of succession, and statistical inference", JASA 22, 1927), which holds for shares near 1 where normal ones do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.orchestrator.core.facts.traffic import Window
from services.orchestrator.core.facts.wish import Metric, Slo

# One-sided 97.5 %: of forty deployments that keep their limits exactly, one is called breached.
CERTAIN_Z: Final = 1.96
# Fewer judged requests are no basis for taking a change back.
LEAST_JUDGED: Final = 20


class Verdict(StrEnum):
    """What the shares say."""

    KEPT = "kept"
    BREACHED = "breached"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Attainment:
    """Shares within the limits over some windows.

    Attributes:
        judged: requests behind them.
        lost: requests that ended by a fault of ours, counted as misses.
        broken: metrics whose limit is certainly broken, the one kept by the fewest requests first.
        words: of a breach, which limit and by how much.
    """

    judged: int
    lost: int
    verdict: Verdict
    broken: tuple[Metric, ...] = ()
    words: str = ""


def attainment(windows: Iterable[Window], slo: Slo) -> Attainment:
    """What some windows say of a deployment's limits."""
    judged = lost = ttft = tpot = e2e = 0
    for window in windows:
        judged += window.judged
        lost += window.lost
        ttft += window.ttft_within
        tpot += window.tpot_within
        e2e += window.e2e_within
    total = judged + lost
    if total == 0:
        return Attainment(0, 0, Verdict.UNSURE)
    shares = {Metric.TTFT: ttft / total, Metric.TPOT: tpot / total}
    if any(limit.metric is Metric.E2E for limit in slo.latency):
        shares[Metric.E2E] = e2e / total
    verdicts: list[Verdict] = []
    broken: list[Metric] = []
    words: list[str] = []
    for metric, share in shares.items():
        wanted = slo.percentile_of(metric) / 100.0
        below, above = bounds(share, total)
        if total >= LEAST_JUDGED and above < wanted:
            verdicts.append(Verdict.BREACHED)
            broken.append(metric)
            words.append(f"{metric} kept by {share:.1%} of {total} requests, {wanted:.1%} is asked for")
        elif below >= wanted or (share >= wanted and total >= LEAST_JUDGED):
            verdicts.append(Verdict.KEPT)
        else:
            verdicts.append(Verdict.UNSURE)
    verdict = next((v for v in (Verdict.BREACHED, Verdict.UNSURE) if v in verdicts), Verdict.KEPT)
    return Attainment(total, lost, verdict, tuple(sorted(broken, key=lambda m: shares[m])), "; ".join(words))


def bounds(share: float, count: int) -> tuple[float, float]:
    """Wilson's interval of a share seen in `count` trials."""
    z2 = CERTAIN_Z**2
    middle = share + z2 / (2 * count)
    half = CERTAIN_Z * math.sqrt(share * (1.0 - share) / count + z2 / (4 * count * count))
    return (middle - half) / (1 + z2 / count), (middle + half) / (1 + z2 / count)
