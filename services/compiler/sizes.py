"""Sizes of a variant's functions that a caller asks for, in place of those of the recipe book. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.compiler.recipes import BOOK, find_recipe, fit
from tradewind.domain.errors import InvalidField
from tradewind.domain.manifest import RecipeFacts
from tradewind.v1 import compiler_pb2

# Shorter prompts fit the shortest chunk as padding; a function of fewer tokens saves nothing.
LEAST_PREFILL_TOKENS: Final = 8
# A call of more keeps decoding sequences waiting for seconds.
MOST_PREFILL_TOKENS: Final = 8192
# Sequences beside each other; far above what any device of today decodes well.
MOST_BATCH: Final = 256
# Each size is a function, which takes some 15 s of CPU to compile for 30 layers.
MOST_SIZES: Final = 8


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is asked for; what is empty or 0 is the recipe's own.

    Attributes:
        prefill_chunks: tokens that prefill calls take, ascending.
        decode_batches: sequences that decode calls take, ascending.
        slots: sequences that the cache holds.
    """

    prefill_chunks: tuple[int, ...] = ()
    decode_batches: tuple[int, ...] = ()
    slots: int = 0

    @property
    def asked(self) -> bool:
        """Whether anything is asked for."""
        return self != Sizes()


def sizes_of(request: compiler_pb2.BuildVariantsRequest) -> Sizes:
    """The sizes of a request, in order and each once.

    Raises:
        InvalidField: a size that makes no sense, or slots that no decode could reach.
    """
    chunks = _checked("prefill_chunks", request.prefill_chunks, LEAST_PREFILL_TOKENS, MOST_PREFILL_TOKENS)
    batches = _checked("decode_batches", request.decode_batches, 1, MOST_BATCH)
    if request.slots > MOST_BATCH:
        raise InvalidField("slots", f"{request.slots} are more than {MOST_BATCH}")
    if request.slots and batches and request.slots != batches[-1]:
        raise InvalidField(
            "slots",
            f"{request.slots} slots where the widest batch is {batches[-1]}: decode calls take the first slots, so "
            "that the widest batch is as many as there are; leave slots out, or add that batch",
        )
    return Sizes(chunks, batches, request.slots)


def with_sizes(facts: RecipeFacts, wanted: Sizes) -> RecipeFacts:
    """A fitted recipe with the sizes asked for.

    Slots without batches keep the recipe's batches below them and add one of all slots; batches without slots have as
    many slots as the widest takes.

    Raises:
        InvalidField: a chunk longer than the context.
    """
    context = facts.context_buckets[-1]
    if (chunks := wanted.prefill_chunks or facts.prefill_chunks)[-1] > context:
        raise InvalidField("prefill_chunks", f"{chunks[-1]} tokens are more than the context of {context} takes")
    batches = wanted.decode_batches
    if not batches and wanted.slots:
        batches = (*(batch for batch in facts.decode_batches if batch < wanted.slots), wanted.slots)
    slots = batches[-1] if batches else facts.slots
    return replace(facts, prefill_chunks=chunks, decode_batches=batches or facts.decode_batches, slots=slots)


def unusual(facts: RecipeFacts, features: frozenset[str], model_context_tokens: int) -> str:
    """Sizes in which a fitted recipe differs from its book's, for names: "+c2048+p128-512+b1-4-8"; "" where in none.

    Args:
        features: what the target can do.
        model_context_tokens: longest context of the model.
    """
    if all(recipe.facts.name != facts.name for recipe in BOOK):
        return ""
    recipe, context, words = find_recipe(facts.name), facts.context_buckets[-1], ""
    usual = fit(recipe, features, model_context_tokens, 0)
    if context != usual.context_buckets[-1]:
        # Chunks longer than the context are left out by it.
        words, usual = f"+c{context}", fit(recipe, features, model_context_tokens, context)
    for letter, sizes, own in (
        ("p", facts.prefill_chunks, usual.prefill_chunks),
        ("b", facts.decode_batches, usual.decode_batches),
    ):
        words += f"+{letter}{'-'.join(map(str, sizes))}" if sizes != own else ""
    return words


def _checked(field: str, values: Sequence[int], least: int, most: int) -> tuple[int, ...]:
    sizes = tuple(sorted(set(values)))
    if wrong := [size for size in sizes if not least <= size <= most]:
        raise InvalidField(field, f"{wrong[0]} is not from {least} to {most}")
    if len(sizes) > MOST_SIZES:
        raise InvalidField(field, f"{len(sizes)} sizes are more than {MOST_SIZES}; each is a function to compile")
    return sizes
