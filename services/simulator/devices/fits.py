"""Fits of measured rows, each with its error on rows that it did not see. Every figure that comes out is modelled.

Decode: `latency = prefill + L·(weights + sequence·B + context·B·1.5·L)` for B requests of L prompt and L output tokens,
least squares of the relative error; the mean context during an answer is 1.5 L. Prefill comes from the linear
operators of Vidur, so that the two are not fitted against each other. Power is linear in the logarithm of the batch
between measured batches, held at the last one beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from services.simulator.devices.tables import BatchRun, SweepRow


@dataclass(frozen=True, slots=True)
class Error:
    """Relative error on held-out rows, each left out once.

    Attributes:
        what: the figure, in words.
        rows: rows held out.
        mean_share, worst_share: of |predicted/measured - 1|.
    """

    what: str
    rows: int
    mean_share: float
    worst_share: float


@dataclass(frozen=True, slots=True)
class DecodeFit:
    """Seconds of a decode step: `weights_s + sequence_s · n + context_s · tokens in the cache`."""

    weights_s: float
    sequence_s: float
    context_s: float


def fit_decode(runs: Sequence[BatchRun], prefill_token_s: float) -> DecodeFit:
    """Least squares over batch runs; at least four different ones are needed."""
    lengths = np.array([r.tokens for r in runs], dtype=float)
    batches = np.array([r.batch for r in runs], dtype=float)
    latencies = np.array([r.latency_s for r in runs])
    features = np.stack([lengths, batches * lengths, 1.5 * batches * lengths**2], axis=1)
    decode_s = latencies - prefill_token_s * batches * lengths
    weighted, *_ = np.linalg.lstsq(features / latencies[:, None], decode_s / latencies, rcond=None)
    weights_s, sequence_s, context_s = (max(float(value), 0.0) for value in weighted)
    return DecodeFit(weights_s, sequence_s, context_s)


def latency_s(fit: DecodeFit, prefill_token_s: float, tokens: int, batch: int) -> float:
    """What the fit says of one batch run."""
    step_s = fit.weights_s + fit.sequence_s * batch + fit.context_s * batch * 1.5 * tokens
    return prefill_token_s * batch * tokens + tokens * step_s


def decode_error(runs: Sequence[BatchRun], prefill_token_s: float, what: str) -> Error:
    """Each run predicted by a fit of all the others."""
    shares = []
    for left in range(len(runs)):
        others = [r for i, r in enumerate(runs) if i != left]
        said = latency_s(fit_decode(others, prefill_token_s), prefill_token_s, runs[left].tokens, runs[left].batch)
        shares.append(abs(said / runs[left].latency_s - 1.0))
    return _error(what, shares)


def steps_error(fit: DecodeFit, rows: Sequence[SweepRow], context: int, what: str) -> Error:
    """Steps that others measured, predicted by a fit that knows of none of them.

    Args:
        context: tokens in the cache for each sequence.
    """
    said = [fit.weights_s + (fit.sequence_s + fit.context_s * context) * row.batch for row in rows]
    return _error(what, [abs(s * 1000.0 / row.step_ms - 1.0) for s, row in zip(said, rows, strict=True)])


def power_w(points: Sequence[tuple[int, float]], batch: int) -> float:
    """Power at a batch: linear in its logarithm between (batch, watts) points, held outside."""
    logs = [log(b) for b, _ in points]
    return float(np.interp(log(max(batch, 1)), logs, [w for _, w in points]))


def power_error(points: Sequence[tuple[int, float]], what: str) -> Error:
    """Each inner point predicted by the others."""
    inner = range(1, len(points) - 1)
    shares = [
        abs(power_w([p for j, p in enumerate(points) if j != i], points[i][0]) / points[i][1] - 1.0) for i in inner
    ]
    return _error(what, shares)


def slope(points: Sequence[tuple[int, float]], least: int) -> float:
    """Milliseconds for each token over the points of at least so many tokens, through the origin."""
    chosen = [(n, ms) for n, ms in points if n >= least]
    return sum(n * ms for n, ms in chosen) / sum(n * n for n, _ in chosen)


def slope_error(points: Sequence[tuple[int, float]], least: int, what: str) -> Error:
    """Each point predicted by a slope of all the others."""
    chosen = [(n, ms) for n, ms in points if n >= least]
    shares = [abs(slope([p for p in chosen if p != q], least) * q[0] / q[1] - 1.0) for q in chosen]
    return _error(what, shares)


def _error(what: str, shares: Sequence[float]) -> Error:
    return Error(what, len(shares), sum(shares) / max(len(shares), 1), max(shares, default=0.0))
