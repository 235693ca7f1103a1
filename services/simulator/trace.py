"""Traces: arrival times and token counts of requests. Reads any CSV of `arrival_s,prompt_tokens,output_tokens`.

A file without `arrival_s` holds lengths only; it gets Poisson arrivals at a stated rate. Knows no prompt text.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from tradewind.domain.errors import InvalidField

# A day of a large service has some ten million requests; beyond that a file is a mistake or wants splitting.
MAX_REQUESTS: Final = 20_000_000
# No model takes a longer context today; a larger number is a broken row.
MAX_TOKENS: Final = 10_000_000
_TOKENS: Final = ("prompt_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival; the three tuples are of equal length.

    Attributes:
        name: of its file, for reports.
        arrival_s: seconds from the start of the run, not decreasing.
        arrivals_from: where the times come from, in words.
    """

    name: str
    arrival_s: tuple[float, ...]
    prompt_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]
    arrivals_from: str = "as recorded"

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def length_s(self) -> float:
        """Time of the last arrival."""
        return self.arrival_s[-1] if self.arrival_s else 0.0

    @property
    def digest(self) -> str:
        """SHA-256 of every request, for reports."""
        rows = zip(self.arrival_s, self.prompt_tokens, self.output_tokens, strict=True)
        sha = hashlib.sha256()
        for row in rows:
            sha.update(repr(row).encode())
        return sha.hexdigest()

    def between(self, start_s: float, end_s: float) -> Trace:
        """Requests that arrive in [start_s, end_s), with times counted from `start_s`.

        Raises:
            InvalidField: there are none.
        """
        kept = [i for i, t in enumerate(self.arrival_s) if start_s <= t < end_s]
        if not kept:
            last = self.length_s
            raise InvalidField("trace", f"{self.name} has no request between {start_s:g} s and {end_s:g} s of {last:g}")
        return Trace(
            self.name,
            tuple(self.arrival_s[i] - start_s for i in kept),
            tuple(self.prompt_tokens[i] for i in kept),
            tuple(self.output_tokens[i] for i in kept),
            self.arrivals_from,
        )

    def stretched(self, factor: float) -> Trace:
        """Every arrival time multiplied, which keeps burstiness; 0.5 doubles the load.

        Raises:
            InvalidField: the factor is not a positive number.
        """
        if not (factor > 0 and math.isfinite(factor)):
            raise InvalidField("time-scale", f"a factor above 0 is needed, not {factor:g}")
        if factor == 1.0:
            return self
        times = tuple(t * factor for t in self.arrival_s)
        words = f"{self.arrivals_from}, times × {factor:g}"
        return Trace(self.name, times, self.prompt_tokens, self.output_tokens, words)

    def shortened(self, factor: float) -> Trace:
        """Every length multiplied, at least one token: for small models on small machines.

        Raises:
            InvalidField: the factor is not a positive number.
        """
        if not (factor > 0 and math.isfinite(factor)):
            raise InvalidField("token-scale", f"a factor above 0 is needed, not {factor:g}")
        if factor == 1.0:
            return self
        prompts, outputs = (
            tuple(max(round(n * factor), 1) for n in row) for row in (self.prompt_tokens, self.output_tokens)
        )
        words = f"{self.arrivals_from}, lengths × {factor:g}"
        return Trace(self.name, self.arrival_s, prompts, outputs, words)

    def copied(self, copies: int, spread_s: float, seed: int) -> Trace:
        """Each request so many times, each copy within ±spread_s of it: more users with the same rhythm.

        Raises:
            InvalidField: fewer than one copy, or too many requests.
        """
        if copies < 1 or copies * len(self) > MAX_REQUESTS:
            raise InvalidField("copies", f"1 copy or more, and at most {MAX_REQUESTS} requests, not {copies}")
        if copies == 1:
            return self
        draw = random.Random(seed)  # noqa: S311 - a seeded simulation, no secret
        rows = sorted(
            (min(max(t + draw.uniform(-spread_s, spread_s), 0.0), self.length_s), p, o)
            for t, p, o in zip(self.arrival_s, self.prompt_tokens, self.output_tokens, strict=True)
            for _ in range(copies)
        )
        times, prompts, outputs = zip(*rows, strict=True)
        words = f"{self.arrivals_from}, {copies} copies of each request within ±{spread_s:g} s"
        return Trace(self.name, times, prompts, outputs, words)

    def rate_per_s(self, start_s: float, end_s: float) -> float:
        """Mean arrivals a second in [start_s, end_s)."""
        return (bisect_left(self.arrival_s, end_s) - bisect_left(self.arrival_s, start_s)) / max(end_s - start_s, 1e-9)

    def peak_per_s(self, window_s: float) -> float:
        """Mean rate of the busiest window, moved by a quarter of its length at a time."""
        starts = [i * window_s / 4.0 for i in range(max(int(4 * (self.length_s - window_s) / window_s), 0) + 1)]
        return max(self.rate_per_s(start, start + window_s) for start in starts)


def read_rates(path: Path, column: str) -> tuple[tuple[float, float], ...]:
    """(window start in seconds, relative rate) of a file of rates, as of ServeGen.

    Raises:
        InvalidField: no such file or column, or a malformed row, named by its line.
    """
    try:
        with _open(path) as file:
            reader = csv.DictReader(file)
            if column not in (reader.fieldnames or []):
                raise InvalidField("rates", f"{path.name} has no column {column}; it has {reader.fieldnames}")
            return tuple((_time(r.get("window_start_s"), path.name, reader.line_num),
                          _time(r.get(column), path.name, reader.line_num)) for r in reader)  # fmt: skip
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidField("rates", f"{path} cannot be read: {error}") from error


def with_rates(trace: Trace, rates: Sequence[tuple[float, float]], length_s: float, seed: int) -> Trace:
    """The trace's lengths with arrivals of a Poisson process whose rate follows `rates`, over `length_s`.

    Each request draws the quantile of its arrival; the rates are taken as a density over the length.
    """
    total = sum(rate for _, rate in rates)
    if not total > 0:
        raise InvalidField("rates", "every rate is 0")
    share, edges = 0.0, [0.0]
    for _, rate in rates:
        share += rate / total
        edges.append(share)
    draw, width = random.Random(seed), length_s / len(rates)  # noqa: S311 - a seeded simulation, no secret
    times = []
    for _ in range(len(trace)):
        u = draw.random() * edges[-1]
        i = min(bisect_right(edges, u) - 1, len(rates) - 1)
        inside = (u - edges[i]) / (edges[i + 1] - edges[i]) if edges[i + 1] > edges[i] else 0.0
        times.append((i + inside) * width)
    words = f"Poisson, rate as {len(rates)} recorded windows over {length_s:g} s"
    return Trace(trace.name, tuple(sorted(times)), trace.prompt_tokens, trace.output_tokens, words)


def read_trace(path: Path, *, rate_per_s: float = 0.0, seed: int = 0) -> Trace:
    """Reads a CSV, plain or gzip.

    Args:
        path: the file; columns beside the three are ignored.
        rate_per_s: for files without `arrival_s`, the mean of their Poisson arrivals.
        seed: of those arrivals.

    Raises:
        InvalidField: no such file, a missing column, or a malformed row, named by its line.
    """
    if not path.is_file():
        raise InvalidField("trace", f"no file {path}; give a CSV with arrival_s,prompt_tokens,output_tokens")
    try:
        with _open(path) as file:
            rows = list(_rows(file, path.name))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidField("trace", f"{path.name} cannot be read: {error}") from error
    if not rows:
        raise InvalidField("trace", f"{path.name} has no requests")
    times: tuple[float, ...]
    if rows[0][0] is None:
        times, words = _poisson(len(rows), rate_per_s, seed, path.name), f"Poisson, {rate_per_s:g} a second"
    else:
        times, words = tuple(t for t, _, _ in rows if t is not None), "as recorded"
    name = path.name.removesuffix(".gz").removesuffix(".csv")
    return Trace(name, times, tuple(p for _, p, _ in rows), tuple(o for _, _, o in rows), words)


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _rows(file: TextIO, name: str) -> Iterator[tuple[float | None, int, int]]:
    reader = csv.DictReader(file)
    columns = reader.fieldnames or []
    missing = [c for c in _TOKENS if c not in columns]
    if missing:
        raise InvalidField("trace", f"{name} line 1 has no column {', '.join(missing)}; it has {', '.join(columns)}")
    timed, last = "arrival_s" in columns, 0.0
    for row in reader:
        line = reader.line_num
        prompt, output = (_count(row.get(c), c, name, line) for c in _TOKENS)
        if not timed:
            yield None, prompt, output
            continue
        at = _time(row.get("arrival_s"), name, line)
        if at < last:
            raise InvalidField("trace", f"{name} line {line}: arrival_s {at:g} is before {last:g} of the line above")
        last = at
        yield at, prompt, output
        if line > MAX_REQUESTS:
            raise InvalidField("trace", f"{name} has more than {MAX_REQUESTS} lines; split it")


def _count(text: str | None, column: str, name: str, line: int) -> int:
    try:
        value = int(text or "")
    except ValueError:
        raise InvalidField("trace", f"{name} line {line}: {column} is {text!r}, a whole number is needed") from None
    if not 1 <= value <= MAX_TOKENS:
        raise InvalidField("trace", f"{name} line {line}: {column} is {value}, 1 to {MAX_TOKENS} is possible")
    return value


def _time(text: str | None, name: str, line: int) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InvalidField("trace", f"{name} line {line}: arrival_s is {text!r}, seconds of 0 or more are needed")
    return value


def _poisson(count: int, rate_per_s: float, seed: int, name: str) -> tuple[float, ...]:
    if not rate_per_s > 0:
        raise InvalidField("rate", f"{name} holds lengths only; say how many arrive a second with --rate")
    draw, now, times = random.Random(seed), 0.0, []  # noqa: S311 - a seeded simulation, no secret
    for _ in range(count):
        now += draw.expovariate(rate_per_s)
        times.append(now)
    return tuple(times)
