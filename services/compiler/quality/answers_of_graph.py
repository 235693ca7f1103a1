"""The reference of a decoder that is no PyTorch model: it is asked whole sequences, once for each token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from services.compiler.quality.reference import GREEDY_PROMPT_TOKENS, GREEDY_TOKENS, Reference
from services.compiler.quality.text import Part, pieces_of


@dataclass(frozen=True, slots=True)
class GreedyAsker:
    """A source: `logits` gives f32 [tokens, V] for a whole sequence."""

    logits: Callable[[tuple[int, ...]], npt.NDArray[np.float32]]

    def greedy(self, prompt: tuple[int, ...], count: int) -> tuple[int, ...]:
        """The most likely tokens after a prompt."""
        taken: list[int] = []
        for _ in range(count):
            taken.append(int(self.logits((*prompt, *taken))[-1].argmax()))
        return tuple(taken)


def reference_of(asker: GreedyAsker, tokenizer: Any, context_tokens: int, part: Part = Part.REPORTING) -> Reference:
    """As `services.compiler.quality.reference.make_reference`, of any source."""
    pieces = tuple(tuple(piece) for piece in pieces_of(tokenizer, part, context_tokens))
    logits = tuple(asker.logits(piece) for piece in pieces)
    prompt = pieces[0][:GREEDY_PROMPT_TOKENS]
    room = max(1, min(GREEDY_TOKENS, context_tokens - len(prompt)))
    return Reference(pieces, logits, prompt, asker.greedy(prompt, room))
