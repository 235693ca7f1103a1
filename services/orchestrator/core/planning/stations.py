"""Replicas as queues, many side by side: the latencies, rates and energies that capacities are worked out from.

With n requests at work the profile gives the mean time of a request T(n) = TTFT(n) + (O-1)·TPOT(n), so a replica
completes µ(n) = n / T(n) requests a second up to its batch limit. What an arrival meets is in `capacity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

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

    def at(self, rows: Whole, most: int) -> Spreads:
        """Some of them, of at most so many sequences."""
        return Spreads(self.medians_ms[:, :most][rows], self.sigmas[:, :most][rows])


@dataclass(frozen=True, slots=True, eq=False)
class Queues:
    """What of stations says how many requests are there: see `Stations`."""

    log_rates: Vector
    full_per_s: Vector
    batches: Whole

    def take(self, rows: Whole) -> Queues:
        """Some of them."""
        return Queues(self.log_rates[rows], self.full_per_s[rows], self.batches[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Profiles for requests of a shape, a row each; column n-1 speaks of n sequences at work.

    Attributes:
        rates_per_s: µ(n).
        log_rates: column n is Σ log µ(k) over k = 1 … n.
        output_tokens: of a request.
    """

    ttft: Spreads
    tpot: Spreads
    rates_per_s: Vector
    log_rates: Vector
    energies_mj: Vector
    output_tokens: Vector

    @property
    def most(self) -> int:
        """Columns."""
        return int(self.rates_per_s.shape[1])

    def take(self, rows: Whole) -> Curves:
        """Some of the profiles."""
        ttft, tpot = self.ttft.at(rows, self.most), self.tpot.at(rows, self.most)
        columns = (self.rates_per_s, self.log_rates, self.energies_mj, self.output_tokens)
        return Curves(ttft, tpot, *(column[rows] for column in columns))


@dataclass(frozen=True, slots=True, eq=False)
class Stations:
    """Replicas as queues: of each its row in curves, which batch limits of one profile share, and its batch limit.

    Attributes:
        most: columns that are looked at; nothing is said of more sequences than `batches`.
    """

    curves: Curves
    rows: Whole
    batches: Whole
    most: int

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def ttft(self) -> Spreads:
        """Time to the first token."""
        return self.curves.ttft.at(self.rows, self.most)

    @property
    def tpot(self) -> Spreads:
        """Time of each later token."""
        return self.curves.tpot.at(self.rows, self.most)

    @property
    def energies_mj(self) -> Vector:
        """Energy of a generated token."""
        return self.curves.energies_mj[:, : self.most][self.rows]

    @property
    def full_per_s(self) -> Vector:
        """Requests completed a second at the batch limit."""
        return self.curves.rates_per_s[self.rows, self.batches - 1]

    @property
    def output_tokens(self) -> Vector:
        """Of a request, one number for each station."""
        return self.curves.output_tokens[self.rows]

    @property
    def queues(self) -> Queues:
        """They without latencies and energies."""
        return Queues(self.curves.log_rates[:, : self.most + 1][self.rows], self.full_per_s, self.batches)

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
        return Stations(self.curves, self.rows[rows], self.batches[rows], self.most)

    def apart(self) -> Stations:
        """They with curves of their own, without those of others."""
        rows, places = numpy.unique(self.rows, return_inverse=True)
        return Stations(self.curves.take(rows), places, self.batches, self.most)

    def up_to(self, most: int) -> Stations:
        """They without what would be of more sequences than so many."""
        return Stations(self.curves, self.rows, self.batches, most)

    def by_width(self, cells: int) -> list[tuple[Whole, Stations]]:
        """They in parts of like batch limits with their rows: small batches are no work for the sake of large ones.

        Args:
            cells: figures that a part has at most.
        """
        classes, found = numpy.ceil(numpy.log2(self.batches) / _WIDTH_STEP).astype(int), []
        for one in sorted(set(classes.tolist())):
            rows = numpy.flatnonzero(classes == one)
            width = int(self.batches[rows].max())
            most = max(cells // width, 1)
            found += [(some, self.take(some).up_to(width)) for some in numpy.split(rows, range(most, len(rows), most))]
        return found


def put_together(parts: Sequence[Spreads]) -> Spreads:
    """All of them, in their order."""
    return Spreads(
        numpy.concatenate([part.medians_ms for part in parts]), numpy.concatenate([part.sigmas for part in parts])
    )


def stations_beside(parts: Sequence[Stations]) -> Stations:
    """All of them, one after the other."""
    most = max(part.curves.most for part in parts)
    curves = [part.curves for part in parts]
    starts = numpy.cumsum([0, *(len(one.output_tokens) for one in curves[:-1])])
    joined = Curves(
        ttft=_spreads_beside([one.ttft for one in curves], most),
        tpot=_spreads_beside([one.tpot for one in curves], most),
        rates_per_s=numpy.concatenate([_wider(one.rates_per_s, most) for one in curves]),
        log_rates=numpy.concatenate([_wider(one.log_rates, most + 1) for one in curves]),
        energies_mj=numpy.concatenate([_wider(one.energies_mj, most) for one in curves]),
        output_tokens=numpy.concatenate([one.output_tokens for one in curves]),
    )
    rows = numpy.concatenate([part.rows + start for part, start in zip(parts, starts.tolist(), strict=True)])
    return Stations(joined, rows, numpy.concatenate([part.batches for part in parts]), most)


def _spreads_beside(parts: Sequence[Spreads], most: int) -> Spreads:
    return put_together([Spreads(_wider(part.medians_ms, most), _wider(part.sigmas, most)) for part in parts])


class Served(NamedTuple):
    """Replicas of each profile with the batch limit beside it, for requests of one shape.

    Attributes:
        sheaves: in which all profiles are.
    """

    profiles: Sequence[Profile]
    batch_limits: Sequence[int]
    demand: Demand
    sheaves: tuple[Sheaf, ...]


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
    return stations_together([Served(profiles, batch_limits, demand, sheaves)])


def stations_together(parts: Sequence[Served]) -> Stations:
    """The replicas of all parts, one after the other.

    Raises:
        ValueError: a profile does not reach its demand's prompt length.
    """
    tables, outputs, rows, start = list[Table](), list[Vector](), list[int](), 0
    for part in parts:
        mine, numbers = _tables(part)
        starts = dict[int, int]()
        for sheaf, table in mine.items():
            starts[sheaf], start = start, start + len(table)
            tables.append(table)
            outputs.append(numpy.full(len(table), float(max(part.demand.output_tokens, 1))))
        rows += [starts[sheaf] + row for sheaf, row in numbers]
    places, batches = (
        numpy.array(rows),
        numpy.array([b for part in parts for b in part.batch_limits], dtype=numpy.int64),
    )
    if (numpy.repeat([table.shape[1] for table in tables], list(map(len, tables)))[places] < batches).any():
        raise ValueError("a profile does not reach the prompt tokens of its demand")
    most = max(table.shape[1] for table in tables)
    curves = _curves(numpy.concatenate([_wider(table, most) for table in tables]), numpy.concatenate(outputs))
    return Stations(curves, places, batches, most)


def _tables(part: Served) -> tuple[dict[int, Table], list[tuple[int, int]]]:
    """Figures at the prompt by number of the sheaf, and for each profile its sheaf and its row in that table."""
    sheaves, prompt, most = part.sheaves, part.demand.prompt_tokens, max(part.batch_limits)
    where = {id(profile): (s, row) for s, sheaf in enumerate(sheaves) for row, profile in enumerate(sheaf.profiles)}
    rows, numbers = dict[int, list[int]](), dict[int, tuple[int, int]]()
    for key in dict.fromkeys(map(id, part.profiles)):
        sheaf, row = where[key]
        mine = rows.setdefault(sheaf, [])
        numbers[key] = (sheaf, len(mine))
        mine.append(row)
    reach = {sheaf: min(sheaves[sheaf].most_at(prompt), most) for sheaf in rows}
    if not all(reach.values()):
        raise ValueError(f"a profile does not reach {prompt} prompt tokens")
    tables = {sheaf: sheaves[sheaf].at(prompt, reach[sheaf], mine) for sheaf, mine in rows.items()}
    return tables, [numbers[id(profile)] for profile in part.profiles]


def _wider(table: Table, columns: int) -> Table:
    """The last column repeated, so that tables can be put together; nothing is read from there."""
    missing = columns - table.shape[1]
    return numpy.concatenate([table, numpy.repeat(table[:, -1:], missing, axis=1)], axis=1) if missing else table


def _curves(table: Table, output_tokens: Vector) -> Curves:
    """Curves of a table of profiles, each for so many output tokens."""
    later = (output_tokens - 1.0)[:, None]
    means_s = (table[..., COLUMNS.TTFT_MEAN] + later * table[..., COLUMNS.TPOT_MEAN]) / 1000.0
    rates = numpy.arange(1, table.shape[1] + 1) / numpy.maximum(means_s, 1e-9)
    log_rates = numpy.cumsum(numpy.concatenate([numpy.zeros((len(table), 1)), numpy.log(rates)], axis=1), axis=1)
    return Curves(
        ttft=_spreads(table, COLUMNS.TTFT_P50),
        tpot=_spreads(table, COLUMNS.TPOT_P50),
        rates_per_s=rates,
        log_rates=log_rates,
        energies_mj=_energies_mj(table, output_tokens[:, None]),
        output_tokens=output_tokens,
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


def _energies_mj(table: Table, output_tokens: Vector) -> Vector:
    per_token, prefill = table[..., COLUMNS.ENERGY_PER_TOKEN], table[..., COLUMNS.ENERGY_PER_PREFILL]
    measured = table[..., COLUMNS.OUTPUT_TOKENS]
    known = (prefill > 0.0) & (measured > 0.0)
    decode = numpy.maximum(per_token - prefill / numpy.where(known, measured, 1.0), 0.0)
    return numpy.where(known, decode + prefill / output_tokens, per_token)
