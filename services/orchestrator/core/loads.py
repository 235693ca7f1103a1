"""Figures of a profile at a load that was not measured. Errs on the safe side and never invents.

- Prompt length: linear between measured ones; shorter than all, the shortest (no better than the truth); longer,
  along the last slope up to `MOST_EXTRAPOLATION` times; beyond, refused. Profiles are measured at corners, not on a
  full grid: a prompt length that was not measured with that many sequences takes no part.
- Sequences together: TTFT is linear between measured numbers. A decode step costs what the compiled batch costs that
  holds the sequences, so between two measured numbers TPOT is that of the larger one, and its energy is shared by
  fewer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from services.orchestrator.core.profile import Latency, Load, Profile

# Prefill work is linear in the prompt with a small quadratic part; up to twice the longest measured prompt the linear
# continuation stays within measurement noise for the model sizes at hand, beyond it does not.
MOST_EXTRAPOLATION: Final = 2.0
# z-values of the normal distribution at 95 % and 99 %.
_Z95: Final = 1.6449
_Z99: Final = 2.3263


@dataclass(frozen=True, slots=True)
class Spread:
    """A latency as a lognormal distribution: its median and the standard deviation of its logarithm."""

    median_ms: float
    sigma: float

    def within(self, limit_ms: float) -> float:
        """Probability of at most `limit_ms`."""
        if limit_ms <= 0:
            return 0.0
        if self.sigma == 0.0 or self.median_ms <= 0.0:
            return 1.0 if self.median_ms <= limit_ms else 0.0
        return 0.5 * math.erfc(-math.log(limit_ms / self.median_ms) / (self.sigma * math.sqrt(2.0)))

    @property
    def p95_ms(self) -> float:
        """Its 95th percentile."""
        return self.median_ms * math.exp(_Z95 * self.sigma)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one load costs, measured or interpolated."""

    ttft: Latency
    tpot: Latency
    energy_per_token_mj: float
    energy_per_prefill_mj: float
    power_mw: float
    output_tokens: float


def spread_of(latency: Latency) -> Spread:
    """The lognormal through the median that is at least as wide as the 95th and 99th percentile say."""
    if latency.p50_ms <= 0.0:
        return Spread(max(latency.mean_ms, 0.0), 0.0)
    sigma95 = math.log(max(latency.p95_ms / latency.p50_ms, 1.0)) / _Z95
    sigma99 = math.log(max(latency.p99_ms / latency.p50_ms, 1.0)) / _Z99
    return Spread(latency.p50_ms, max(sigma95, sigma99))


def most_concurrency(profile: Profile) -> int:
    """The most sequences together that were measured, within the batch limit."""
    return max((load.concurrency for load in profile.loads if load.concurrency <= profile.batch_limit), default=0)


def longest_prompt(profile: Profile, concurrency: int) -> float:
    """The longest prompt that figures can be given for with so many sequences, in tokens."""
    reaching = (load.prompt_tokens for load in profile.loads if load.concurrency >= concurrency)
    return MOST_EXTRAPOLATION * max(reaching, default=0)


def figures_at(profile: Profile, prompt_tokens: int, concurrency: int) -> Figures:
    """Interpolated figures.

    Raises:
        ValueError: the prompt is beyond `longest_prompt`.
    """
    if prompt_tokens > longest_prompt(profile, concurrency):
        raise ValueError(f"profile {profile.profile_id} does not reach {prompt_tokens} prompt tokens")
    by_prompt: dict[int, list[Load]] = {}
    for load in profile.loads:
        by_prompt.setdefault(load.prompt_tokens, []).append(load)
    rows = [
        (float(prompt), _at_concurrency(loads, concurrency))
        for prompt, loads in sorted(by_prompt.items())
        if max(load.concurrency for load in loads) >= concurrency
    ]
    return _figures(_at_prompt(rows, float(prompt_tokens)))


_Row = tuple[float, ...]


def _at_concurrency(loads: list[Load], concurrency: int) -> _Row:
    """A row for so many sequences; some load has at least as many."""
    ordered = sorted(loads, key=lambda load: load.concurrency)
    above = next(load for load in ordered if load.concurrency >= concurrency)
    below = next((load for load in reversed(ordered) if load.concurrency < concurrency), None)
    upper = _row(above)
    if below is None or above.concurrency == concurrency:
        return upper
    lower = _row(below)
    mixed = _mix(lower, upper, (concurrency - below.concurrency) / (above.concurrency - below.concurrency))
    energy_mj = min(above.energy_per_token_mj * above.concurrency / concurrency, below.energy_per_token_mj)
    return (*mixed[0:4], *upper[4:8], max(energy_mj, above.energy_per_token_mj), *mixed[9:])


def _row(load: Load) -> _Row:
    ttft, tpot = load.ttft, load.tpot
    return (
        *(ttft.p50_ms, max(ttft.p95_ms, ttft.p50_ms), max(ttft.p99_ms, ttft.p95_ms), ttft.mean_ms or ttft.p50_ms),
        *(tpot.p50_ms, max(tpot.p95_ms, tpot.p50_ms), max(tpot.p99_ms, tpot.p95_ms), tpot.mean_ms or tpot.p50_ms),
        *(load.energy_per_token_mj, load.energy_per_prefill_mj, load.power_mw, float(load.output_tokens)),
    )


def _figures(row: _Row) -> Figures:
    return Figures(Latency(*row[0:4]), Latency(*row[4:8]), row[8], row[9], row[10], row[11])


def _at_prompt(rows: list[tuple[float, _Row]], x: float) -> _Row:
    """Linear between the two neighbours of x; outside see the module header."""
    if x <= rows[0][0]:
        return rows[0][1]
    for (x0, row0), (x1, row1) in pairwise(rows):
        if x <= x1:
            return _mix(row0, row1, (x - x0) / (x1 - x0))
    last_x, last = rows[-1]
    if len(rows) == 1:
        # A single prompt length: latency in proportion, which is no less than the truth for work with a fixed part.
        scale = x / last_x
        return (*(v * scale for v in last[0:4]), *last[4:9], last[9] * scale, *last[10:])
    x0, row0 = rows[-2]
    mixed = _mix(row0, last, (x - x0) / (last_x - x0))
    # Noise may make a slope negative; a longer prompt is never promised to be cheaper.
    return (*(max(new, old) for new, old in zip(mixed[:11], last[:11], strict=True)), last[11])


def _mix(a: _Row, b: _Row, share: float) -> _Row:
    return tuple(x + (y - x) * share for x, y in zip(a, b, strict=True))
