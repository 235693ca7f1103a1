"""What a node runs to time the functions of a module, and what its figures say of them. Pure.

A node measures requests, not functions: a prompt of one chunk shows what that prefill takes, and a few tokens of as
many sequences what a step of that decode takes. Both hold what the engine adds, which is the same for all candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.compiler.search.core.facts import Cost
from tradewind.domain.manifest import Function

# Tokens of each sequence of a decode: the first is the prefill's, the others are steps enough for a median.
DECODED_TOKENS: Final = 12
# Times that a load is repeated; its figures are medians over all of them.
REPEATS: Final = 3
# A prompt in front of a decode: short, for it is not what is timed.
_PROMPT_TOKENS: Final = 16


@dataclass(frozen=True, slots=True)
class Ask:
    """One load: so many sequences together, of so many tokens in and out."""

    prompt_tokens: int
    output_tokens: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What one load showed: medians, and energies where they were measured or attributed."""

    ttft_ms: float
    tpot_ms: float
    prefill_mj: float = 0.0
    token_mj: float = 0.0


def asks_of(functions: Sequence[Function]) -> tuple[Ask, ...]:
    """The loads that show every function, each once."""
    return tuple(dict.fromkeys(_ask(function, functions) for function in functions))


def costs_of(functions: Sequence[Function], seen: Mapping[Ask, Seen]) -> tuple[Cost, ...]:
    """The cost of a call of each function.

    Raises:
        KeyError: a load was not run.
    """
    return tuple(_cost(function, seen[_ask(function, functions)]) for function in functions)


def _ask(function: Function, functions: Sequence[Function]) -> Ask:
    if function.phase == "prefill":
        # A longer context of the same chunk is reached by longer prompts only, which are several chunks.
        least = min(f.context for f in functions if f.phase == "prefill" and f.tokens == function.tokens)
        return Ask(min(function.tokens, least - 1), 1, 1)
    below = max((f.context for f in functions if f.phase == "decode" and f.context < function.context), default=0)
    # One token past the next smaller bucket, so that this one has to do it.
    room = function.context - DECODED_TOKENS
    return Ask(
        max(1, min(max(_PROMPT_TOKENS, below + 1), room)), min(DECODED_TOKENS, function.context - 1), function.batch
    )


def _cost(function: Function, seen: Seen) -> Cost:
    if function.phase == "prefill":
        return Cost(function.name, seen.ttft_ms, energy_mj=seen.prefill_mj)
    of_steps_mj = max(seen.token_mj * DECODED_TOKENS - seen.prefill_mj, 0.0)
    return Cost(function.name, seen.tpot_ms, energy_mj=of_steps_mj / (DECODED_TOKENS - 1) * function.batch)
