"""What is written in the cache's rows, slot by slot, so that a prompt that begins with it need not be worked out again.

A sequence that has left its slot leaves its rows behind. The next turn of a conversation begins with them: it is
admitted into that slot, and its prompt is taken in from the first token on that differs. Rows of another salt are
as good as empty. How much rows are wanted that lie there is learned: from prompts that find theirs, and from those that
would have, had others not been written over them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.node_agent.core.shapes import Shapes

Tokens = npt.NDArray[np.int64]

# Decode steps that the choice of a slot is weighed over, at most: callers name a limit and stop before it.
WEIGHED_STEPS: Final = 64
# Sequences remembered after others were written over them.
OVERWRITTEN: Final = 16
# Of what is believed about the worth of rows, renewed with each sequence.
LEARNED_SHARE: Final = 0.1


class Admission(NamedTuple):
    """Where a waiting sequence goes.

    Attributes:
        number: in the queue.
        slot: a free one.
        kept: rows of the slot that hold the beginning of its prompt; fewer than the prompt has tokens.
    """

    number: int
    slot: int
    kept: int = 0


class KeptRows:
    """Tokens of the rows that are written.

    Args:
        slots: of the cache.
        rows: of each slot.

    Attributes:
        wanted: share of a sequence's rows that a later one wants, lately.
    """

    def __init__(self, slots: int, rows: int) -> None:
        self._tokens = np.zeros((slots, rows), np.int64)
        self._written = [0] * slots
        self._salts = [""] * slots
        self._used = [0] * slots
        self._turn = 0
        self._overwritten: deque[tuple[str, Tokens]] = deque(maxlen=OVERWRITTEN)
        self.wanted = 0.0

    def learn(self, prompt: Tokens, salt: str) -> None:
        """A prompt came: how much of what was written once does it want?"""
        once = [(self._salts[slot], self._tokens[slot, :count]) for slot, count in enumerate(self._written) if count]
        shares = [_common(rows, prompt) / len(rows) for of, rows in (*once, *self._overwritten) if of == salt]
        self.wanted += LEARNED_SHARE * (max(shares, default=0.0) - self.wanted)

    def admit(self, slot: int, kept: int, salt: str) -> None:
        """A sequence takes a slot and the first so many rows of it."""
        if self._written[slot] > 2 * kept:
            self._overwritten.append((self._salts[slot], self._tokens[slot, : self._written[slot]].copy()))
        self._turn += 1
        self._written[slot], self._salts[slot], self._used[slot] = kept, salt, self._turn

    def wrote(self, slot: int, start: int, tokens: Sequence[int] | Tokens) -> None:
        """Rows from `start` on, at most the first that was not written, hold these tokens; later ones hold nothing."""
        end = start + len(tokens)
        self._tokens[slot, start:end] = tokens
        self._written[slot] = end

    def token(self, slot: int, row: int) -> int:
        """The token of a row that is written; 0 elsewhere."""
        return int(self._tokens[slot, row]) if slot < len(self._written) and row < self._written[slot] else 0

    def common(self, slot: int, prompt: Tokens, salt: str) -> int:
        """Tokens at the beginning of a prompt that a slot holds."""
        if self._salts[slot] != salt:
            return 0
        return _common(self._tokens[slot, : self._written[slot]], prompt)

    def lost(self, slot: int, held: int) -> float:
        """Rows that somebody will want and that go when a sequence takes a slot of which it holds so many."""
        return self.wanted * (self._written[slot] - held)

    def oldest_first(self, slots: Iterable[int]) -> list[int]:
        """Slots by when they were last taken, those never taken first."""
        return sorted(slots, key=lambda slot: (self._used[slot], slot))


class Costs(NamedTuple):
    """What work takes lately.

    Attributes:
        token_s: a prompt token.
        step_s: a decode step, by the batch of its function; what is not in it is not known.
    """

    token_s: float
    step_s: Mapping[int, float]

    def decode_s(self, batch: int) -> float:
        """A step of so many sequences takes no less than any of fewer."""
        return max((seconds for known, seconds in self.step_s.items() if known <= batch), default=0.0)


def admission(
    kept: KeptRows,
    taken: Sequence[bool],
    prompt: Tokens,
    salt: str,
    most_output_tokens: int,
    shapes: Shapes,
    costs: Costs,
    number: int = 0,
) -> Admission:
    """The free slot in which a sequence takes least time.

    A slot that holds much of the prompt saves its work; one that holds other rows costs what it takes to write them
    again, as far as they are wanted; a high one makes every decode step that of a larger batch. Among equal ones the
    slot that was taken longest ago.

    Args:
        taken: for each slot whether a sequence is in it; one at least is free.
        number: of the sequence in the queue.
    """
    highest = max((slot for slot, busy in enumerate(taken) if busy), default=0)
    steps = min(most_output_tokens, WEIGHED_STEPS)
    best, least = Admission(number, -1), (float("inf"), 0)
    for slot in kept.oldest_first(slot for slot, busy in enumerate(taken) if not busy):
        held = _usable(shapes, kept.common(slot, prompt, salt), len(prompt))
        batch = shapes.batch_of(max(slot, highest))
        # Before a pace is known a token counts as one, so that what is held is worth something.
        tokens = len(prompt) - held + kept.lost(slot, held)
        cost = tokens * (costs.token_s or 1.0) + steps * costs.decode_s(batch)
        if (cost, batch) < least:
            best, least = Admission(number, slot, held), (cost, batch)
    return best


def _common(rows: Tokens, prompt: Tokens) -> int:
    count = min(len(rows), len(prompt))
    other = np.flatnonzero(rows[:count] != prompt[:count])
    return int(other[0]) if len(other) else count


def _usable(shapes: Shapes, held: int, prompt_tokens: int) -> int:
    """Rows to go on from: one token at least is taken in, by a function that fits."""
    start = min(held, prompt_tokens - 1)
    while start and not shapes.takes(start, prompt_tokens - start):
        start -= 1
    return start
