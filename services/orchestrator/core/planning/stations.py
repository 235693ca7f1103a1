"""Replicas as queues, many side by side: the latencies, rates and energies that capacities are worked out from.

With n requests at work the profile gives the mean time of a request T(n) = TTFT(n) + (O-1)·TPOT(n), so a replica
completes µ(n) = n / T(n) requests a second up to its batch limit. What an arrival meets is in `capacity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy
from numpy.typing import NDArray

from services.orchestrator.core.facts.loads import COLUMNS, Sheaf, Spread, Table, sheaves_of
from services.orchestrator.core.facts.profile import Profile
from services.orchestrator.core.facts.wish import Demand, Metric
from services.orchestrator.core.planning.normal import normal_cdf

# Queues grow as 1/(1-ρ); above this share the model's errors decide, not the load.
MOST_UTILISATION: Final = 0.9
# Batch limits within a factor of four (two doublings) are worked on side by side.
_WIDTH_STEP: Final = 2.0
_Z95: Final = 1.6449
_Z99: Final = 2.3263

Vector = NDArray[numpy.float64]
Whole = NDArray[numpy.int64]
Bools = NDArray[numpy.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Spreads:
    """Lognormal latencies: a row for each station, column n-1 for n sequences at work."""

    medians_ms: Vector
    sigmas: Vector

    def one(self, row: int, column: int) -> Spread:
        """A single one of them."""
        return Spread(float(self.medians_ms[row, column]), float(self.sigmas[row, column]))

    def within(self, limits_ms: Vector) -> Vector:
        """Probabilities of at most a limit, which is one for each row."""
        certain = (self.sigmas == 0.0) | (self.medians_ms <= 0.0)
        medians, sigmas = numpy.where(certain, 1.0, self.medians_ms), numpy.where(certain, 1.0, self.sigmas)
        limits = limits_ms[:, None]
        shares = normal_cdf((numpy.log(numpy.maximum(limits, 1e-300)) - numpy.log(medians)) / sigmas)
        return numpy.where(certain, self.medians_ms <= limits, shares) * (limits > 0.0)

    def p95_ms(self, rows: Whole, columns: Whole) -> Vector:
        """95th percentiles of some of them."""
        found: Vector = self.medians_ms[rows, columns] * numpy.exp(_Z95 * self.sigmas[rows, columns])
        return found

    def up_to(self, most: int) -> Spreads:
        """Those of at most so many sequences."""
        return Spreads(self.medians_ms[:, :most], self.sigmas[:, :most])

    def take(self, rows: Whole) -> Spreads:
        """Those of some stations."""
        return Spreads(self.medians_ms[rows], self.sigmas[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Queues:
    """What of stations says how many requests are there: see `Stations`."""

    log_rates: Vector
    full_per_s: Vector
    batches: Whole

    @property
    def rows(self) -> Whole:
        """The number of each row."""
        return numpy.arange(len(self.batches))

    def take(self, rows: Whole) -> Queues:
        """Some of them."""
        return Queues(self.log_rates[rows], self.full_per_s[rows], self.batches[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Stations:
    """Replicas as queues, a row each; column n-1 speaks of n sequences at work, and of nothing beyond `batches`.

    Attributes:
        log_rates: column n is Σ log µ(k) over k = 1 … n.
        full_per_s: µ at the batch limit.
        output_tokens: of a request, one number for each station.
    """

    ttft: Spreads
    tpot: Spreads
    log_rates: Vector
    full_per_s: Vector
    energies_mj: Vector
    batches: Whole
    output_tokens: Vector

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def rows(self) -> Whole:
        """The number of each row."""
        return numpy.arange(len(self.batches))

    @property
    def queues(self) -> Queues:
        """They without latencies and energies."""
        return Queues(self.log_rates, self.full_per_s, self.batches)

    @property
    def most_per_s(self) -> Vector:
        """Requests a second that each is ever loaded with."""
        return MOST_UTILISATION * self.full_per_s

    def spreads(self, metric: Metric) -> Spreads:
        """Latencies of a metric."""
        if metric is Metric.E2E:
            return _sum(self.ttft, self.tpot, numpy.maximum(self.output_tokens - 1.0, 0.0)[:, None])
        return self.ttft if metric is Metric.TTFT else self.tpot

    def take(self, rows: Whole) -> Stations:
        """Some of them."""
        return Stations(
            self.ttft.take(rows),
            self.tpot.take(rows),
            self.log_rates[rows],
            self.full_per_s[rows],
            self.energies_mj[rows],
            self.batches[rows],
            self.output_tokens[rows],
        )

    def up_to(self, most: int) -> Stations:
        """They without the columns beyond so many sequences; `batches` are not above it."""
        return Stations(
            self.ttft.up_to(most),
            self.tpot.up_to(most),
            self.log_rates[:, : most + 1],
            self.full_per_s,
            self.energies_mj[:, :most],
            self.batches,
            self.output_tokens,
        )

    def by_width(self, cells: int) -> list[tuple[Whole, Stations]]:
        """They in parts of like batch limits with their rows: small batches are no work for the sake of large ones.

        Args:
            cells: figures that a part has at most.
        """
        classes, found = numpy.ceil(numpy.log2(self.batches) / _WIDTH_STEP).astype(int), []
        for one in sorted(set(classes.tolist())):
            rows = numpy.flatnonzero(classes == one)
            width = int(self.batches[rows].max())
            narrow, most = self.up_to(width), max(cells // width, 1)
            for some in numpy.split(rows, range(most, len(rows), most)):
                found.append((some, narrow if len(some) == len(self) else narrow.take(some)))
        return found


def side_by_side(parts: Sequence[Stations]) -> Stations:
    """All of them, in their order."""
    wide = max(part.energies_mj.shape[1] for part in parts)
    return Stations(
        put_together([part.ttft for part in parts]),
        put_together([part.tpot for part in parts]),
        numpy.concatenate([_wider(part.log_rates, wide + 1) for part in parts]),
        numpy.concatenate([part.full_per_s for part in parts]),
        numpy.concatenate([_wider(part.energies_mj, wide) for part in parts]),
        numpy.concatenate([part.batches for part in parts]),
        numpy.concatenate([part.output_tokens for part in parts]),
    )


def put_together(parts: Sequence[Spreads]) -> Spreads:
    """All of them, in their order."""
    wide = max(part.sigmas.shape[1] for part in parts)
    return Spreads(
        numpy.concatenate([_wider(part.medians_ms, wide) for part in parts]),
        numpy.concatenate([_wider(part.sigmas, wide) for part in parts]),
    )


def station_of(profile: Profile, demand: Demand, batch_limit: int) -> Stations:
    """One replica at a profile's operating point, for requests of the demand's shape.

    Raises:
        ValueError: the profile does not reach the demand's prompt length.
    """
    return stations_of((profile,), (batch_limit,), demand, sheaves_of((profile,)))


def stations_of(
    profiles: Sequence[Profile], batch_limits: Sequence[int], demand: Demand, sheaves: tuple[Sheaf, ...]
) -> Stations:
    """A replica of each profile with the batch limit beside it.

    Args:
        profiles: each of them is in one of `sheaves`.

    Raises:
        ValueError: a profile does not reach the demand's prompt length.
    """
    batches = numpy.array(batch_limits, dtype=numpy.int64)
    tables, numbers = _tables(profiles, int(batches.max()), demand.prompt_tokens, sheaves)
    reached = numpy.array([tables[sheaf].shape[1] for sheaf, _ in numbers])
    if (short := numpy.flatnonzero(reached < batches)).size:
        name = profiles[int(short[0])].profile_id
        raise ValueError(f"profile {name} does not reach {demand.prompt_tokens} prompt tokens")
    wide = max(table.shape[1] for table in tables.values())
    starts, start = dict[int, int](), 0
    for sheaf, table in tables.items():
        starts[sheaf], start = start, start + len(table)
    table = numpy.concatenate([_wider(table, wide) for table in tables.values()])
    return _stations(table, numpy.array([starts[sheaf] + row for sheaf, row in numbers]), batches, demand)


def _tables(
    profiles: Sequence[Profile], most: int, prompt_tokens: int, sheaves: tuple[Sheaf, ...]
) -> tuple[dict[int, Table], list[tuple[int, int]]]:
    """Figures at the prompt by number of the sheaf, and for each profile its sheaf and its row in that table."""
    where = {id(profile): (s, row) for s, sheaf in enumerate(sheaves) for row, profile in enumerate(sheaf.profiles)}
    rows: dict[int, dict[int, int]] = {}
    numbers = []
    for profile in profiles:
        sheaf, row = where[id(profile)]
        mine = rows.setdefault(sheaf, {})
        numbers.append((sheaf, mine.setdefault(row, len(mine))))
    reach = {sheaf: min(sheaves[sheaf].most_at(prompt_tokens), most) for sheaf in rows}
    if any(count == 0 for count in reach.values()):
        raise ValueError(f"a profile does not reach {prompt_tokens} prompt tokens")
    return {s: sheaves[s].at(prompt_tokens, count, list(rows[s])) for s, count in reach.items()}, numbers


def _wider(table: Table, columns: int) -> Table:
    """The last column repeated, so that tables can be put together; nothing is read from there."""
    missing = columns - table.shape[1]
    return numpy.concatenate([table, numpy.repeat(table[:, -1:], missing, axis=1)], axis=1) if missing else table


def _stations(table: Table, rows: Whole, batches: Whole, demand: Demand) -> Stations:
    """Stations of rows of a table of profiles; what batch limits have in common is worked out once."""
    output, later = max(demand.output_tokens, 1), max(demand.output_tokens - 1, 0)
    ttft, tpot = _spreads(table, COLUMNS.TTFT_P50), _spreads(table, COLUMNS.TPOT_P50)
    means_s = (table[..., COLUMNS.TTFT_MEAN] + later * table[..., COLUMNS.TPOT_MEAN]) / 1000.0
    rates = numpy.arange(1, table.shape[1] + 1) / numpy.maximum(means_s, 1e-9)
    log_rates = numpy.cumsum(numpy.concatenate([numpy.zeros((len(table), 1)), numpy.log(rates)], axis=1), axis=1)
    return Stations(
        ttft=ttft.take(rows),
        tpot=tpot.take(rows),
        log_rates=log_rates[rows],
        full_per_s=rates[rows, batches - 1],
        energies_mj=_energies_mj(table, output)[rows],
        batches=batches,
        output_tokens=numpy.full(len(rows), float(output)),
    )


def _spreads(table: Table, median: COLUMNS) -> Spreads:
    """Lognormals through the medians that are at least as wide as the 95th and 99th percentiles say."""
    p50, p95, p99, mean = (table[..., median + offset] for offset in range(4))
    known = p50 > 0.0
    safe = numpy.where(known, p50, 1.0)
    sigma95 = numpy.log(numpy.maximum(p95 / safe, 1.0)) / _Z95
    sigma99 = numpy.log(numpy.maximum(p99 / safe, 1.0)) / _Z99
    sigmas = numpy.where(known, numpy.maximum(sigma95, sigma99), 0.0)
    return Spreads(numpy.where(known, p50, numpy.maximum(mean, 0.0)), sigmas)


def _sum(ttft: Spreads, tpot: Spreads, later: Vector) -> Spreads:
    """First token plus the later ones; percentiles add up as if both were slow together, the safe side."""
    medians = ttft.medians_ms + later * tpot.medians_ms
    p95 = ttft.medians_ms * numpy.exp(_Z95 * ttft.sigmas) + later * tpot.medians_ms * numpy.exp(_Z95 * tpot.sigmas)
    wide = (p95 > medians) & (medians > 0.0)
    return Spreads(medians, numpy.log(numpy.where(wide, p95 / numpy.where(wide, medians, 1.0), 1.0)) / _Z95)


def _energies_mj(table: Table, output_tokens: int) -> Vector:
    per_token, prefill = table[..., COLUMNS.ENERGY_PER_TOKEN], table[..., COLUMNS.ENERGY_PER_PREFILL]
    measured = table[..., COLUMNS.OUTPUT_TOKENS]
    known = (prefill > 0.0) & (measured > 0.0)
    decode = numpy.maximum(per_token - prefill / numpy.where(known, measured, 1.0), 0.0)
    return numpy.where(known, decode + prefill / output_tokens, per_token)
