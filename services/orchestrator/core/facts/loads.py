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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from statistics import NormalDist
from typing import Final

import numpy
from numpy.typing import NDArray

from services.orchestrator.core.facts.profile import Latency, Load, Profile

# Prefill work is linear in the prompt with a small quadratic part; up to twice the longest measured prompt the linear
# continuation stays within measurement noise for the model sizes at hand, beyond it does not.
MOST_EXTRAPOLATION: Final = 2.0
# z-values of the normal distribution at 95 % and 99 %.
_Z95: Final = 1.6449
_Z99: Final = 2.3263
_NORMAL: Final = NormalDist()


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

    def percentile_ms(self, percentile: float) -> float:
        """The latency that `percentile` per cent stay within."""
        return self.median_ms * math.exp(self.sigma * _NORMAL.inv_cdf(percentile / 100.0))


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
    return _reach(max(reaching, default=0))


def longest_prompts(profile: Profile) -> dict[int, float]:
    """The same for each measured number of sequences within the batch limit, rising."""
    found: dict[int, float] = {}
    most = 0
    for load in sorted(profile.loads, key=lambda load: -load.concurrency):
        most = max(most, load.prompt_tokens)
        if 0 < load.concurrency <= profile.batch_limit:
            found[load.concurrency] = _reach(most)
    return dict(reversed(found.items()))


Table = NDArray[numpy.float64]


class COLUMNS(IntEnum):
    """Columns of a table."""

    TTFT_P50 = 0
    TTFT_P95 = 1
    TTFT_P99 = 2
    TTFT_MEAN = 3
    TPOT_P50 = 4
    TPOT_P95 = 5
    TPOT_P99 = 6
    TPOT_MEAN = 7
    ENERGY_PER_TOKEN = 8
    ENERGY_PER_PREFILL = 9
    POWER = 10
    OUTPUT_TOKENS = 11


def figures_at(profile: Profile, prompt_tokens: int, concurrency: int) -> Figures:
    """Interpolated figures.

    Raises:
        ValueError: the prompt is beyond `longest_prompt`.
    """
    return _figures(table_at(profile, prompt_tokens, concurrency)[concurrency - 1])


def figures_up_to(profile: Profile, prompt_tokens: int, most: int) -> list[Figures]:
    """Interpolated figures of 1, 2, … `most` sequences, as far as the profile reaches with such prompts."""
    reached = max((n for n in range(1, most + 1) if prompt_tokens <= longest_prompt(profile, n)), default=0)
    return [_figures(row) for row in table_at(profile, prompt_tokens, reached)] if reached else []


def table_at(profile: Profile, prompt_tokens: int, most: int) -> Table:
    """Interpolated figures of 1 to `most` sequences together, a row each; columns as in `COLUMNS`.

    Raises:
        ValueError: the prompt is beyond `longest_prompt` for that many.
    """
    if prompt_tokens > longest_prompt(profile, most):
        raise ValueError(f"profile {profile.profile_id} does not reach {prompt_tokens} prompt tokens")
    table: Table = _bound((profile,)).at(prompt_tokens, most, (0,))[0]
    return table


@dataclass(frozen=True, slots=True, eq=False)
class Sheaf:
    """Profiles that were measured at the same loads, with their figures side by side.

    Attributes:
        columns: for each prompt length that was measured a table of profiles × sequences × `COLUMNS`.
    """

    profiles: tuple[Profile, ...]
    columns: dict[int, Table]

    def most_at(self, prompt_tokens: int) -> int:
        """The most sequences together that figures can be given for with such prompts; 0 when there are none."""
        reaching = (table.shape[1] for prompt, table in self.columns.items() if prompt_tokens <= _reach(prompt))
        return max(reaching, default=0)

    def at(self, prompt_tokens: int, most: int, profiles: Sequence[int]) -> Table:
        """Interpolated figures of some profiles × 1 to `most` sequences × `COLUMNS`; `most` is not above `most_at`."""
        # Between two of these numbers of sequences the same prompt lengths take part.
        ends = sorted({min(table.shape[1], most) for table in self.columns.values()})
        parts, begin = list[Table](), 0
        for end in ends:
            rows = [
                (float(p), table[profiles, begin:end]) for p, table in self.columns.items() if table.shape[1] >= end
            ]
            parts.append(_at_prompt(rows, float(prompt_tokens)))
            begin = end
        return numpy.concatenate(parts, axis=1)


def sheaves_of(profiles: Iterable[Profile]) -> tuple[Sheaf, ...]:
    """The profiles, bound by what they were measured at; those without loads are left out."""
    alike: dict[tuple[tuple[int, int], ...], list[Profile]] = {}
    for profile in profiles:
        if profile.loads:
            alike.setdefault(tuple((load.prompt_tokens, load.concurrency) for load in profile.loads), []).append(
                profile
            )
    return tuple(_bound(tuple(found)) for found in alike.values())


def _bound(profiles: tuple[Profile, ...]) -> Sheaf:
    loads = profiles[0].loads
    figures = numpy.array([[_row(load) for load in profile.loads] for profile in profiles])
    for p50, p95, p99, mean in (range(4), range(4, 8)):
        # No percentile is below a lower one, and a mean that is not told is the median.
        figures[..., p99] = numpy.maximum(figures[..., p99], figures[..., p95])
        figures[..., p95] = numpy.maximum(figures[..., p95], figures[..., p50])
        figures[..., mean] = numpy.where(figures[..., mean], figures[..., mean], figures[..., p50])
    by_prompt: dict[int, list[int]] = {}
    for number in sorted(range(len(loads)), key=lambda n: (loads[n].prompt_tokens, loads[n].concurrency)):
        by_prompt.setdefault(loads[number].prompt_tokens, []).append(number)
    return Sheaf(
        profiles,
        {
            prompt: _by_concurrency([loads[n].concurrency for n in numbers], figures[:, numbers])
            for prompt, numbers in by_prompt.items()
        },
    )


def _reach(prompt_tokens: int) -> float:
    return MOST_EXTRAPOLATION * prompt_tokens


def _by_concurrency(concurrencies: list[int], rows: Table) -> Table:
    """Rows for 1, 2, … sequences of each profile, as far as loads of this prompt length go."""
    measured = numpy.array(concurrencies)
    numbers = numpy.arange(1, int(measured[-1]) + 1)
    above = numpy.searchsorted(measured, numbers)
    below = numpy.maximum(above - 1, 0)
    upper, lower = rows[:, above], rows[:, below]
    exact = (measured[above] == numbers) | (above == 0)
    share = numpy.where(exact, 1.0, (numbers - measured[below]) / numpy.maximum(measured[above] - measured[below], 1))
    table: Table = lower + (upper - lower) * share[:, None]
    table[..., 4:8] = upper[..., 4:8]
    column = COLUMNS.ENERGY_PER_TOKEN
    shared = numpy.minimum(upper[..., column] * measured[above] / numbers, lower[..., column])
    table[..., column] = numpy.where(exact, upper[..., column], numpy.maximum(shared, upper[..., column]))
    return table


def _row(load: Load) -> tuple[float, ...]:
    ttft, tpot = load.ttft, load.tpot
    return (
        *(ttft.p50_ms, ttft.p95_ms, ttft.p99_ms, ttft.mean_ms, tpot.p50_ms, tpot.p95_ms, tpot.p99_ms, tpot.mean_ms),
        *(load.energy_per_token_mj, load.energy_per_prefill_mj, load.power_mw, float(load.output_tokens)),
    )


def _figures(row: Table) -> Figures:
    values = [float(value) for value in row]
    return Figures(Latency(*values[0:4]), Latency(*values[4:8]), values[8], values[9], values[10], values[11])


def _at_prompt(rows: list[tuple[float, Table]], x: float) -> Table:
    """Linear between the two neighbours of x; outside see the module header."""
    if x <= rows[0][0]:
        return rows[0][1]
    for (x0, row0), (x1, row1) in pairwise(rows):
        if x <= x1:
            return row0 + (row1 - row0) * ((x - x0) / (x1 - x0))
    last_x, last = rows[-1]
    if len(rows) == 1:
        # A single prompt length: latency in proportion, which is no less than the truth for work with a fixed part.
        table = last.copy()
        table[..., [*range(4), COLUMNS.ENERGY_PER_PREFILL]] *= x / last_x
        return table
    x0, row0 = rows[-2]
    table = row0 + (last - row0) * ((x - x0) / (last_x - x0))
    # Noise may make a slope negative; a longer prompt is never promised to be cheaper.
    table = numpy.maximum(table, last)
    table[..., COLUMNS.OUTPUT_TOKENS] = last[..., COLUMNS.OUTPUT_TOKENS]
    return table
