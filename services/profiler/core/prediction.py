"""What a load would cost that was not measured: a small physical model through what was. Pure.

Four figures are modelled and the rest follows from them. P is the prompt length, C the number of sequences, B the
sequences the decode function really computes (the smallest compiled batch that holds C):

    TTFT            a + b·P + c·P·C     a fixed part, and prefills that wait for each other
    TPOT            a + b·B + c·B·P     a decode step: weights once, each row its own cache
    energy of step  a + b·B + c·B·P     the same step in millijoules, prefill's share taken out; C sequences share it
    of a prefill    a + b·P             one sequence's, spread over its output tokens

The coefficients come from non-negative least squares on relative errors, so that a slope never points downwards and a
small figure counts as much as a large one. What the fit leaves over at the measured points is added back by inverse
distance, so a measured point is met exactly.

The error stated is leave-one-out: each point is predicted from the others and compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tradewind.domain.figures import derived
from tradewind.v1 import common_pb2, profiler_pb2

METHOD: Final = "prefill-step-fit@1"
# With fewer loads the fit has nothing to say beyond the measured points themselves.
MIN_POINTS_FOR_ERROR: Final = 3
_UNKNOWN_ERROR: Final = -1.0

LoadPoint = profiler_pb2.LoadPoint
Features = Callable[["Where"], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Where:
    """A place in the space of loads: prompt tokens, sequences together, sequences the decode function computes."""

    prompt_tokens: int
    concurrency: int
    batch: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted load point, how it was had, and the mean relative leave-one-out error (negative: not known)."""

    load: LoadPoint
    method: str
    relative_error: float


class Surface:
    """One figure over the space of loads, exact where it was measured."""

    def __init__(self, features: Features, places: Sequence[Where], values: Sequence[float]) -> None:
        self._features, self._places = features, places
        rows = np.array([features(p) for p in places], dtype=np.float64)
        target = np.array(values, dtype=np.float64)
        self._coefficients = _non_negative_fit(rows, target)
        self._residuals = target - rows @ self._coefficients

    def at(self, place: Where) -> float:
        """The figure at a place; never negative."""
        fitted = float(np.dot(np.array(self._features(place)), self._coefficients))
        return max(0.0, fitted + self._residual(place))

    def _residual(self, place: Where) -> float:
        distances = [_distance(place, p) for p in self._places]
        for distance, residual in zip(distances, self._residuals, strict=True):
            if distance == 0:
                return float(residual)
        weights = np.array([1 / d**2 for d in distances])
        return float(np.dot(weights, self._residuals) / weights.sum())


class CostModel:
    """Predicts load points of one operating point from its measured ones.

    Args:
        loads: measured; at least one.
        decode_batches: sequences the decode functions take; empty when not known.

    Raises:
        ValueError: no loads.
    """

    def __init__(self, loads: Sequence[LoadPoint], decode_batches: Sequence[int] = ()) -> None:
        if not loads:
            raise ValueError("a cost model needs at least one measured load")
        self._loads, self._batches = list(loads), tuple(sorted(decode_batches))
        self._places = [self.where(p.prompt_tokens, p.concurrency) for p in loads]
        self._ttft = self._surface(_prefill_features, [p.ttft.p50_ms for p in loads])
        self._tpot = self._surface(_step_features, [p.tpot.p50_ms for p in loads])
        self._step_mj = self._surface(_step_features, [_decode_mj(p) * p.concurrency for p in loads])
        self._prefill_mj = self._surface(_length_features, [p.energy_per_prefill.energy_mj for p in loads])

    def where(self, prompt_tokens: int, concurrency: int) -> Where:
        """The place of a load."""
        batch = next((b for b in self._batches if b >= concurrency), concurrency)
        return Where(prompt_tokens, concurrency, batch)

    def predict(self, prompt_tokens: int, output_tokens: int, concurrency: int) -> Prediction:
        """The cost of a load: the measured figures where it was measured, else the model's, labelled so."""
        for load in self._loads:
            if (load.prompt_tokens, load.concurrency) == (prompt_tokens, concurrency):
                return Prediction(load, "measured", 0.0)
        place = self.where(prompt_tokens, concurrency)
        nearest = min(zip(self._loads, self._places, strict=True), key=lambda pair: _distance(place, pair[1]))[0]
        load = self._point(place, output_tokens or nearest.output_tokens, nearest)
        return Prediction(load, "interpolated" if self._inside(place) else METHOD, self.relative_error())

    def relative_error(self) -> float:
        """Mean relative error of TTFT and TPOT over all points, each predicted from the others; -1 when too few."""
        if len(self._loads) < MIN_POINTS_FOR_ERROR:
            return _UNKNOWN_ERROR
        errors: list[float] = []
        for index, held_out in enumerate(self._loads):
            rest = CostModel([p for i, p in enumerate(self._loads) if i != index], self._batches)
            place = rest.where(held_out.prompt_tokens, held_out.concurrency)
            for surface, truth in ((rest._ttft, held_out.ttft.p50_ms), (rest._tpot, held_out.tpot.p50_ms)):
                if truth > 0:
                    errors.append(abs(surface.at(place) - truth) / truth)
        return sum(errors) / len(errors) if errors else _UNKNOWN_ERROR

    def _surface(self, features: Features, values: Sequence[float]) -> Surface:
        return Surface(features, self._places, values)

    def _inside(self, place: Where) -> bool:
        prompts = [p.prompt_tokens for p in self._places]
        numbers = [p.concurrency for p in self._places]
        return min(prompts) <= place.prompt_tokens <= max(prompts) and min(numbers) <= place.concurrency <= max(numbers)

    def _point(self, place: Where, output_tokens: int, nearest: LoadPoint) -> LoadPoint:
        ttft_ms, tpot_ms = self._ttft.at(place), self._tpot.at(place)
        seconds = (ttft_ms + tpot_ms * max(0, output_tokens - 1)) / 1e3
        source = derived(nearest.energy_per_token.source)
        method = f"{METHOD}({nearest.energy_per_token.method})" if nearest.energy_per_token.method else METHOD
        prefill_mj = self._prefill_mj.at(place)
        token_mj = self._step_mj.at(place) / place.concurrency + prefill_mj / max(1, output_tokens)
        return LoadPoint(
            prompt_tokens=place.prompt_tokens,
            output_tokens=output_tokens,
            concurrency=place.concurrency,
            ttft=_stretched(nearest.ttft, ttft_ms),
            tpot=_stretched(nearest.tpot, tpot_ms),
            tokens_per_s=place.concurrency * output_tokens / seconds if seconds > 0 else 0.0,
            energy_per_token=_energy(token_mj, source, method),
            energy_per_prefill=_energy(prefill_mj, derived(nearest.energy_per_prefill.source), method),
            power_mw=nearest.power_mw,
        )


def _prefill_features(place: Where) -> tuple[float, ...]:
    return (1.0, place.prompt_tokens, place.prompt_tokens * (place.concurrency - 1))


def _length_features(place: Where) -> tuple[float, ...]:
    return (1.0, place.prompt_tokens)


def _decode_mj(load: LoadPoint) -> float:
    """Energy of one token without the prefill's share, which the agent counts into it."""
    share = load.energy_per_prefill.energy_mj / max(1, load.output_tokens)
    return max(0.0, load.energy_per_token.energy_mj - share)


def _step_features(place: Where) -> tuple[float, ...]:
    return (1.0, place.batch, place.batch * place.prompt_tokens)


def _distance(one: Where, other: Where) -> float:
    """Distance in doublings: lengths and numbers matter by ratio; the batch counts, the number itself a little."""
    return (
        abs(math.log2(one.prompt_tokens / other.prompt_tokens))
        + abs(math.log2(one.batch / other.batch))
        + 0.1 * abs(math.log2(one.concurrency / other.concurrency))
    )


def _non_negative_fit(rows: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares on relative errors with coefficients ≥ 0, by trying every set of active columns (at most 2³)."""
    weights = 1 / np.maximum(np.abs(target), 1e-9)
    scaled, wanted = rows * weights[:, None], target * weights
    best, best_cost = np.zeros(rows.shape[1]), float("inf")
    columns = range(rows.shape[1])
    for active in (list(c) for size in range(1, rows.shape[1] + 1) for c in combinations(columns, size)):
        if len(active) > len(target):
            continue
        solution, *_ = np.linalg.lstsq(scaled[:, active], wanted, rcond=None)
        if (solution < 0).any():
            continue
        cost = float(np.sum((scaled[:, active] @ solution - wanted) ** 2))
        # Of two fits as good as each other the one with fewer terms extrapolates better.
        if cost < best_cost - 1e-9:
            best, best_cost = np.zeros(rows.shape[1]), cost
            best[active] = solution
    return best


def _stretched(like: profiler_pb2.LatencyStats, p50_ms: float) -> profiler_pb2.LatencyStats:
    """A distribution of the same shape around another median; no samples stand behind it."""
    factor = p50_ms / like.p50_ms if like.p50_ms > 0 else 1.0
    return profiler_pb2.LatencyStats(
        p50_ms=p50_ms, p95_ms=like.p95_ms * factor, p99_ms=like.p99_ms * factor, mean_ms=like.mean_ms * factor
    )


def _energy(energy_mj: float, source: int, method: str) -> common_pb2.Energy:
    return common_pb2.Energy(energy_mj=energy_mj, source=common_pb2.FigureSource.ValueType(source), method=method)
