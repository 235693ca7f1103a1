"""From logits to a token: greedy, temperature, top-k, top-p; log-probabilities. Pure; draws are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tradewind.domain.errors import InvalidField

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32] | npt.NDArray[np.int64]

MAX_TEMPERATURE: Final = 2.0
# As the contract says; more would make a message for each token large.
MAX_TOP_LOGPROBS: Final = 20
_BLOCK: Final = 256


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
        """Whether no draw is needed; a temperature that f32 cannot tell from 0 is 0."""
        return np.float32(self.temperature) == 0 or self.top_k == 1


@dataclass(frozen=True, slots=True)
class Picks:
    """The largest logits of a row, largest first, equals by id: values [K] and token ids [K]."""

    values: Logits
    ids: Ids


def choose(logits: Logits, choice: Choice, draw: float) -> int:
    """The next token.

    Args:
        logits: [V].
        choice: how.
        draw: uniform in [0, 1); unused when greedy.
    """
    if choice.greedy:
        return int(logits.argmax())
    if 0 < choice.top_k < len(logits):
        kept = _largest(logits, choice.top_k)
        return int(kept[_draw_one(logits[kept], choice, draw)])
    return _draw_one(logits, choice, draw)


def picks_suffice(choice: Choice, picks: int) -> bool:
    """Whether the `picks` largest logits give the very token that all of them would: greedy, or top-k of no more."""
    return choice.greedy or 0 < choice.top_k <= picks


def choose_picked(picks: Picks, choice: Choice, draw: float) -> int:
    """As `choose`, and the same token, for a choice that the picks suffice for."""
    if choice.greedy:
        return int(picks.ids[0])
    return int(picks.ids[_draw_one(picks.values[: choice.top_k], choice, draw)])


def _draw_one(logits: Logits, choice: Choice, draw: float) -> int:
    """The place of a draw among logits, of which top-p may leave out the smallest."""
    weights = np.exp((logits - logits.max()) / np.float32(choice.temperature))
    if choice.top_p == 1.0:
        return _inverse(weights, draw)
    nucleus = _nucleus(weights, choice.top_p)
    return int(nucleus[_inverse(weights[nucleus], draw)])


def log_probabilities(logits: Logits, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """The natural log-probability of a token and the `top` likeliest (token, log-probability), of the plain softmax."""
    highest = float(logits.max())
    normaliser = highest + float(np.log(np.exp(logits - logits.max()).sum(dtype=np.float64)))
    best = _largest(logits, top) if top else np.empty(0, np.int64)
    return float(logits[token]) - normaliser, [(int(t), float(logits[t]) - normaliser) for t in best]


def _nucleus(weights: Logits, top_p: float) -> npt.NDArray[np.int64]:
    """Indices of the fewest largest weights whose sum reaches the share `top_p`, largest first, equals by index.

    Only weights of at least (1-p)/n of the sum are sorted: all those below together are less than 1-p of it.
    """
    total = float(weights.sum(dtype=np.float64))
    some = np.flatnonzero(weights >= (1.0 - top_p) * total / len(weights))
    ordered = some[np.lexsort((some, -weights[some]))]
    mass = np.cumsum(weights[ordered], dtype=np.float64)
    return ordered[: int(np.searchsorted(mass, top_p * total)) + 1]


def _largest(values: Logits, count: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` largest, largest first, equals by index."""
    if count < len(values):
        threshold = np.partition(values, len(values) - count)[len(values) - count]
        some = np.flatnonzero(values >= threshold)
    else:
        some = np.arange(len(values))
    return some[np.lexsort((some, -values[some]))][:count]


def _inverse(weights: Logits, draw: float) -> int:
    """Index at which the cumulated weights pass the draw's share of their sum.

    Looks for the block first and then inside it: cumulating a whole vocabulary would take most of a step's host time.
    """
    starts = np.arange(0, len(weights), _BLOCK)
    ends = np.cumsum(np.add.reduceat(weights, starts, dtype=np.float64))
    wanted = draw * ends[-1]
    block = min(int(np.searchsorted(ends, wanted, side="right")), len(starts) - 1)
    first = int(starts[block])
    inside = np.cumsum(weights[first : first + _BLOCK], dtype=np.float64)
    inside += ends[block - 1] if block else 0.0
    return first + min(int(np.searchsorted(inside, wanted, side="right")), len(inside) - 1)
