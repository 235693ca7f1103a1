"""From logits to a token: greedy, temperature, top-k, top-p; log-probabilities. Pure; draws are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tradewind.domain.errors import InvalidField

Logits = npt.NDArray[np.float32]

MAX_TEMPERATURE: Final = 2.0
# As the contract says; more would make a message for each token large.
MAX_TOP_LOGPROBS: Final = 20
# Candidates looked at first for top-p; the mass is nearly always among them, and sorting all costs ten times more.
_FIRST_CANDIDATES: Final = 1024


@dataclass(frozen=True, slots=True)
class Choice:
    """How tokens of one sequence are chosen.

    Attributes:
        temperature: 0 is greedy.
        top_p: mass kept, in (0, 1].
        top_k: candidates kept; 0 for all.
        logprobs: whether log-probabilities are wanted.
        top_logprobs: how many others beside each token's own.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    logprobs: bool = False
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= MAX_TEMPERATURE:
            raise InvalidField("sampling.temperature", f"{self.temperature} is not in [0, {MAX_TEMPERATURE:g}]")
        if not 0 < self.top_p <= 1:
            raise InvalidField("sampling.top_p", f"{self.top_p} is not in (0, 1]")
        if not 0 <= self.top_logprobs <= MAX_TOP_LOGPROBS:
            raise InvalidField("sampling.top_logprobs", f"{self.top_logprobs} is more than {MAX_TOP_LOGPROBS}")

    @property
    def greedy(self) -> bool:
        """Whether no draw is needed."""
        return self.temperature == 0 or self.top_k == 1


def choose(logits: Logits, choice: Choice, draw: float) -> int:
    """The next token.

    Args:
        logits: [V].
        choice: how.
        draw: uniform in [0, 1); unused when greedy.
    """
    if choice.greedy:
        return int(logits.argmax())
    scaled = (logits - logits.max()) / np.float32(choice.temperature)
    if choice.top_k == 0 and choice.top_p == 1.0:
        return _inverse(np.exp(scaled, dtype=np.float64), draw)
    candidates = _candidates(scaled, choice)
    return int(candidates[_inverse(np.exp(scaled[candidates], dtype=np.float64), draw)])


def log_probabilities(logits: Logits, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """The natural log-probability of a token and the `top` likeliest (token, log-probability), of the plain softmax."""
    highest = float(logits.max())
    normaliser = highest + float(np.log(np.exp(logits - highest, dtype=np.float64).sum()))
    best = _largest(logits, top) if top else np.empty(0, np.int64)
    return float(logits[token]) - normaliser, [(int(t), float(logits[t]) - normaliser) for t in best]


def _candidates(scaled: Logits, choice: Choice) -> npt.NDArray[np.int64]:
    """Tokens kept by top-k and then top-p, likeliest first, equals by token id."""
    count = min(choice.top_k or len(scaled), len(scaled))
    if choice.top_p == 1.0:
        return _largest(scaled, count)
    # The mass is of what top-k keeps, as elsewhere in the field.
    considered = _largest(scaled, count) if choice.top_k else None
    kept = scaled if considered is None else scaled[considered]
    total = float(np.exp(kept, dtype=np.float64).sum())
    first = _largest(scaled, min(count, _FIRST_CANDIDATES)) if considered is None else considered
    mass = np.cumsum(np.exp(scaled[first], dtype=np.float64))
    if considered is None and mass[-1] < choice.top_p * total:
        first = _largest(scaled, count)
        mass = np.cumsum(np.exp(scaled[first], dtype=np.float64))
    return first[: int(np.searchsorted(mass, choice.top_p * total)) + 1]


def _largest(values: Logits, count: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` largest, largest first, equals by index."""
    if count < len(values):
        threshold = np.partition(values, len(values) - count)[len(values) - count]
        some = np.flatnonzero(values >= threshold)
    else:
        some = np.arange(len(values))
    return some[np.lexsort((some, -values[some]))][:count]


def _inverse(weights: npt.NDArray[np.float64], draw: float) -> int:
    """Index at which the cumulated weights pass the draw's share of their sum."""
    cumulated = np.cumsum(weights)
    return min(int(np.searchsorted(cumulated, draw * cumulated[-1], side="right")), len(weights) - 1)
