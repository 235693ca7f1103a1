"""Compares rows of logits with the reference's. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Row = npt.NDArray[np.float32]

# Fewer stretches of text say too little of how they differ.
LEAST_STRETCHES = 8


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
    perplexity_increase_error: float = 0.0
    greedy_tokens: int = 0
    greedy_agreed_tokens: int = 0

    @property
    def top1_error(self) -> float:
        """Standard error of the agreement, a binomial share."""
        return math.sqrt(self.top1_agreement * (1 - self.top1_agreement) / self.positions)

    @property
    def greedy_agreement(self) -> float:
        """Share of the source's greedy answer before the first token that differs by more than a tie."""
        return self.greedy_agreed_tokens / self.greedy_tokens if self.greedy_tokens else 1.0

    @property
    def perplexity_increase(self) -> float:
        """Relative increase of perplexity against the reference."""
        return self.perplexity / self.reference_perplexity - 1


@dataclass(frozen=True, slots=True)
class Greedy:
    """A greedy answer beside the source's.

    Attributes:
        tokens: of the source's answer.
        prefix_tokens: the same in both before the first difference.
        agreed_tokens: before the first difference that is no tie; see `Evaluator`.
    """

    tokens: int = 0
    prefix_tokens: int = 0
    agreed_tokens: int = 0


class Comparison:
    """Takes positions one by one and sums them up.

    The increase of perplexity is exp(mean difference) - 1 of paired differences: what the source gives the text's next
    token against what the variant gives it, in nats. Differences of one stretch of text may go together, so that the
    standard error is that of the stretches' sums (cluster-robust: Cameron and Miller, *Journal of Human Resources* 50,
    2015), or that of single positions where it is larger.
    """

    def __init__(self) -> None:
        self._top1 = self._top5 = self._positions = self._rows = 0
        self._kl = self._reference_loss = self._max_error = 0.0
        self._numbers = True
        self._differences: dict[int, list[float]] = defaultdict(list)

    def add(self, reference: Row, row: Row, next_token: int | None, stretch: int = 0) -> None:
        """One position with all that is to know of it.

        Args:
            reference: the source's logits.
            row: the variant's.
            next_token: of the text, where there is one.
            stretch: of text that it belongs to.
        """
        self._rows += 1
        if not self._count(int(reference.argmax()), row):
            return
        wanted, got = _log_softmax(reference), _log_softmax(row)
        self._max_error = max(self._max_error, float(np.abs(reference - row).max()))
        self._kl += float(np.sum(np.exp(wanted) * (wanted - got)))
        if next_token is not None:
            self._predicted(float(wanted[next_token]), float(got[next_token]), stretch)

    def add_known(self, best: int, log_likelihood: float, row: Row, next_token: int, stretch: int) -> None:
        """One position of which the source's likeliest token and the likelihood of the next one are known."""
        if self._count(best, row):
            shifted = row - row.max()
            got = float(shifted[next_token]) - math.log(float(np.exp(shifted).sum(dtype=np.float64)))
            self._predicted(log_likelihood, got, stretch)

    @property
    def kl_divergence_nats(self) -> float:
        """Mean over whole rows so far; infinite when a row was no number, and when there was none."""
        return self._kl / self._rows if self._rows and self._numbers else math.inf

    def figures(self, text: str, greedy: Greedy = Greedy()) -> Figures:
        """Means over all positions; infinite where the variant gave something that is no number.

        Raises:
            ValueError: nothing was compared.
        """
        differences = [one for stretch in self._differences.values() for one in stretch]
        if not self._positions or (self._numbers and not differences):
            raise ValueError("no position was compared")
        mean = sum(differences) / len(differences) if self._numbers else math.inf
        reference_loss = self._reference_loss / max(1, len(differences))
        return Figures(
            top1_agreement=self._top1 / self._positions,
            top5_agreement=self._top5 / self._positions,
            kl_divergence_nats=max(0.0, self.kl_divergence_nats),
            perplexity=_exp(reference_loss + mean),
            reference_perplexity=_exp(reference_loss),
            max_logit_error=self._max_error if self._numbers else math.inf,
            positions=self._positions,
            text=text,
            greedy_prefix_tokens=greedy.prefix_tokens,
            perplexity_increase_error=_exp(mean) * self._error(mean) if self._numbers else math.inf,
            greedy_tokens=greedy.tokens,
            greedy_agreed_tokens=greedy.agreed_tokens,
        )

    def _count(self, best: int, row: Row) -> bool:
        """Counts a position's agreement; whether the row holds numbers."""
        self._positions += 1
        if not np.isfinite(row).all():
            self._numbers = False
            return False
        self._top1 += int(row.argmax()) == best
        self._top5 += int(np.count_nonzero(row > row[best])) < 5
        return True

    def _predicted(self, wanted: float, got: float, stretch: int) -> None:
        self._reference_loss -= wanted
        self._differences[stretch].append(wanted - got)

    def _error(self, mean: float) -> float:
        """Standard error of the mean difference, in nats; infinite for a single stretch of a single position."""
        count = sum(map(len, self._differences.values()))
        single = sum((one - mean) ** 2 for stretch in self._differences.values() for one in stretch)
        stretches = len(self._differences)
        summed = sum(sum(one - mean for one in stretch) ** 2 for stretch in self._differences.values())
        errors = [math.sqrt(single / (count - 1) / count)] if count > 1 else [math.inf]
        if stretches > LEAST_STRETCHES:
            errors.append(math.sqrt(summed * stretches / (stretches - 1)) / count)
        return max(errors)


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
