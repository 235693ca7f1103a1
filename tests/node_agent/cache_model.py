"""A model in a few lines whose answers depend on every cache row it may read: misuse of the cache shows in the tokens.

Implements the port `services.node_agent.replica.model.Model` with the rules of the ABI, padding included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from services.node_agent.core.sampling import Logits
from services.node_agent.core.shapes import Shapes
from services.node_agent.replica.model import Tokens
from services.node_agent.replica.scores import Scores
from tradewind.domain.manifest import Function

VOCABULARY_SIZE = 97
GARBAGE = -1


def shapes(
    *,
    chunks: Sequence[int] = (4, 16),
    batches: Sequence[int] = (1, 2, 4),
    contexts: Sequence[int] = (32, 64),
    slots: int = 4,
) -> Shapes:
    """Shapes of a made-up module."""
    prefills = tuple(Function(f"prefill_t{t}_c{c}", "prefill", t, 1, c) for t in chunks for c in contexts if t <= c)
    decodes = tuple(Function(f"decode_b{b}_c{c}", "decode", 1, b, c) for b in batches for c in contexts)
    return Shapes(prefills, decodes, slots, contexts[-1], contexts[-1] + chunks[-1])


class CacheModel:
    """Logits are a hash of the rows attended to.

    Args:
        of: the shapes.
        before_call: called with the function before each call, on the engine's thread.
        picks: largest logits that calls give beside all of them.

    Attributes:
        whole: whether calls give all logits; only a model with picks can do without.
    """

    def __init__(self, of: Shapes, before_call: Callable[[Function], None] = lambda _: None, picks: int = 0) -> None:
        self._picks, self.whole = picks, True
        self.cache = np.full((of.slots, of.cache_tokens), GARBAGE, np.int64)
        self.calls: list[Function] = []
        self._before_call = before_call

    def prefill(self, function: Function, tokens: Tokens, slot: int, start: int) -> Scores:
        self._called(function)
        length = len(tokens)
        assert 1 <= length <= function.tokens
        assert start + length <= function.context
        rows = self.cache[slot]
        assert start + function.tokens <= len(rows)
        rows[start : start + function.tokens] = GARBAGE
        rows[start : start + length] = tokens
        return self._scores([logits_of(rows[: start + length])])

    def decode(self, function: Function, tokens: Sequence[int], positions: Sequence[int]) -> Scores:
        self._called(function)
        assert len(tokens) == len(positions) == function.batch
        answers = []
        for slot, (token, position) in enumerate(zip(tokens, positions, strict=True)):
            assert position < function.context
            if slot >= len(self.cache):
                answers.append(np.zeros(VOCABULARY_SIZE, np.float32))
                continue
            self.cache[slot, position] = token
            answers.append(logits_of(self.cache[slot, : position + 1]))
        return self._scores(answers)

    def _scores(self, rows: list[Logits]) -> Scores:
        """With picks, logits that nobody may need are not there to be looked at."""
        logits = np.stack(rows)
        if not self._picks:
            return Scores(logits)
        ids = np.argsort(-logits, axis=1, kind="stable")[:, : self._picks]
        return Scores(logits if self.whole else None, np.take_along_axis(logits, ids, 1), ids)

    def _called(self, function: Function) -> None:
        self._before_call(function)
        self.calls.append(function)


def logits_of(rows: Sequence[int] | Tokens) -> Logits:
    """Logits after these tokens; the same for the same tokens, whoever asks."""
    digest = hashlib.sha256(np.asarray(rows, np.int64).tobytes()).digest()
    seed = np.frombuffer(digest[:8], np.uint64)[0]
    return np.random.default_rng(int(seed)).normal(0, 2, VOCABULARY_SIZE).astype(np.float32)


def greedy(prompt: Sequence[int], count: int) -> list[int]:
    """What a plain loop without batches, slots or chunks answers."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(logits_of(tokens).argmax()))
    return tokens[len(prompt) :]
