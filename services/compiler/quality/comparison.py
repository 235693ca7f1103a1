"""Compares rows of logits with the reference's. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Row = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Figures:
    """How near a variant is to the source framework; the same fields as `tradewind.v1.Quality`."""

    top1_agreement: float
    top5_agreement: float
    kl_divergence_nats: float
    perplexity: float
    reference_perplexity: float
    max_logit_error: float
    positions: int
    text: str
    greedy_prefix_tokens: int

    @property
    def perplexity_increase(self) -> float:
        """Relative increase of perplexity against the reference."""
        return self.perplexity / self.reference_perplexity - 1


class Comparison:
    """Takes rows one by one and sums them up."""

    def __init__(self) -> None:
        self._top1 = self._top5 = self._rows = self._predictions = 0
        self._kl = self._loss = self._reference_loss = self._max_error = 0.0
        self._numbers = True

    def add(self, reference: Row, row: Row, next_token: int | None) -> None:
        """One position: logits of both sides, and the text's next token where there is one."""
        self._rows += 1
        if not np.isfinite(row).all():
            self._numbers = False
            return
        best = int(reference.argmax())
        self._top1 += int(row.argmax()) == best
        self._top5 += best in np.argpartition(row, -5)[-5:]
        self._max_error = max(self._max_error, float(np.abs(reference - row).max()))
        wanted, got = _log_softmax(reference), _log_softmax(row)
        self._kl += float(np.sum(np.exp(wanted) * (wanted - got)))
        if next_token is not None:
            self._predictions += 1
            self._loss -= float(got[next_token])
            self._reference_loss -= float(wanted[next_token])

    @property
    def kl_divergence_nats(self) -> float:
        """Mean over the rows so far; infinite when a row was no number, and when there was none."""
        return self._kl / self._rows if self._rows and self._numbers else math.inf

    def figures(self, text: str, greedy_prefix_tokens: int) -> Figures:
        """Means over all positions; infinite where the variant gave something that is no number.

        Raises:
            ValueError: nothing was compared.
        """
        if not self._rows or not self._predictions:
            raise ValueError("no position was compared")
        bad = not self._numbers
        return Figures(
            top1_agreement=self._top1 / self._rows,
            top5_agreement=self._top5 / self._rows,
            kl_divergence_nats=max(0.0, self.kl_divergence_nats),
            perplexity=math.inf if bad else _exp(self._loss / self._predictions),
            reference_perplexity=_exp(self._reference_loss / self._predictions),
            max_logit_error=math.inf if bad else self._max_error,
            positions=self._rows,
            text=text,
            greedy_prefix_tokens=greedy_prefix_tokens,
        )


def common_prefix(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Number of equal tokens before the first difference."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))


def _log_softmax(row: Row) -> npt.NDArray[np.float64]:
    shifted = row.astype(np.float64) - float(row.max())
    result: npt.NDArray[np.float64] = shifted - math.log(float(np.exp(shifted).sum()))
    return result


def _exp(mean_loss: float) -> float:
    """exp, infinite beyond the range of a double: a garbage variant may lose 1000 nats a token."""
    return math.exp(mean_loss) if mean_loss < 700 else math.inf
