"""Which compiled function does a piece of work: the smallest that covers it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tradewind.domain.manifest import Function, VariantManifest

# What a prefill call costs beside its tokens (reading all weights), as so many tokens: chunks of 32 and 128 tokens of a
# 135 M model in f32 took 1.1 and 2.8 s on a crowded two-core CPU, which is a line through 0.5 s, or 30 tokens.
CALL_COST_TOKENS: Final = 32


@dataclass(frozen=True, slots=True)
class Shapes:
    """The functions of a module, in the order in which they are tried.

    Attributes:
        prefills: by tokens, then context, ascending.
        decodes: by batch, then context, ascending.
        slots: sequences that may be at work together: what the cache holds and decode covers.
        context_tokens: longest sequence.
        cache_tokens: rows of the cache for each slot.
    """

    prefills: tuple[Function, ...]
    decodes: tuple[Function, ...]
    slots: int
    context_tokens: int
    cache_tokens: int

    def __post_init__(self) -> None:
        if not self.prefills or not self.decodes:
            raise ValueError("a module needs at least one prefill and one decode function")

    def prefill(self, start: int, remaining: int, most_tokens: int) -> Function:
        """The function for the next chunk of a prompt.

        A prompt goes in by the largest chunks that `most_tokens` allows; its rest by the smallest chunk that covers it,
        or by several of the next smaller size where that computes less padding than the further calls cost. Then the
        shortest context. When no function is as small as `most_tokens`, the smallest there is.

        Args:
            start: rows already written.
            remaining: prompt tokens still to take, at least 1.
            most_tokens: longest chunk wanted.
        """
        fitting = [f for f in self.prefills if self._fits(f, start, remaining)]
        if not fitting:
            raise ValueError(f"no prefill function takes {remaining} tokens at {start}")
        allowed = [f for f in fitting if f.tokens <= most_tokens] or [
            f for f in fitting if f.tokens == fitting[0].tokens
        ]
        tokens = _chunk_tokens(sorted({f.tokens for f in allowed}), remaining)
        return next(f for f in allowed if f.tokens == tokens)

    def decode(self, highest_slot: int, positions: Sequence[int]) -> Function:
        """The function for one token of each of slots 0…highest_slot.

        Args:
            highest_slot: highest slot that takes part.
            positions: of every slot, where its next token is written; those inside the batch lie in the context,
                whether they take part or not.
        """
        for function in self.decodes:
            if function.batch > highest_slot and function.context > max(positions[: function.batch]):
                return function
        raise ValueError(f"no decode function covers slot {highest_slot} at positions {list(positions)}")

    def takes(self, start: int, remaining: int) -> bool:
        """Whether there is a function for a prompt's chunk of which so many rows are written already."""
        return any(self._fits(f, start, remaining) for f in self.prefills)

    def batch_of(self, highest_slot: int) -> int:
        """Sequences that a decode step computes when this is the highest slot that takes part."""
        return next(f.batch for f in self.decodes if f.batch > highest_slot)

    def _fits(self, function: Function, start: int, remaining: int) -> bool:
        # Padding is written too: up to start + T it must lie inside the cache.
        written = min(function.tokens, remaining)
        return start + written <= function.context and start + function.tokens <= self.cache_tokens


def _chunk_tokens(sizes: Sequence[int], remaining: int) -> int:
    """Which of the ascending sizes to take next."""
    covering = next((size for size in sizes if size >= remaining), None)
    if covering is None:
        return sizes[-1]
    smaller = max((size for size in sizes if size < remaining), default=None)
    if smaller is None:
        return covering
    calls = -(-remaining // smaller)
    return smaller if calls * (smaller + CALL_COST_TOKENS) < covering + CALL_COST_TOKENS else covering


def shapes_of(manifest: VariantManifest, batch_limit: int = 0) -> Shapes:
    """The shapes of a variant, with at most `batch_limit` sequences together (0: as many as it can)."""
    prefills = _in_order(f for f in manifest.functions if f.phase == "prefill")
    decodes = _in_order(f for f in manifest.functions if f.phase == "decode")
    widest = max((f.batch for f in decodes), default=0)
    slots = min(manifest.slots, widest, batch_limit or widest)
    return Shapes(prefills, decodes, slots, manifest.context_tokens, manifest.cache_tokens)


def _in_order(functions: Iterable[Function]) -> tuple[Function, ...]:
    return tuple(sorted(functions, key=lambda f: (f.tokens, f.batch, f.context)))
