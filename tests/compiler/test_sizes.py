"""Sizes that a build asks for: the recipe's own, those of the caller, or a refusal that says what would do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.compiler.recipes import find_recipe, fit
from services.compiler.sizes import MOST_SIZES, Sizes, sizes_of, unusual, with_sizes
from tradewind.domain.errors import InvalidField
from tradewind.domain.manifest import RecipeFacts
from tradewind.v1 import compiler_pb2

FACTS = fit(find_recipe("f32-grouped"), frozenset(), 2048, 0)


def fitted(**wanted: Any) -> RecipeFacts:
    return with_sizes(FACTS, sizes_of(compiler_pb2.BuildVariantsRequest(**wanted)))


def test_without_a_wish_the_recipe_stays_as_it_is() -> None:
    assert fitted() == FACTS and not sizes_of(compiler_pb2.BuildVariantsRequest()).asked


@pytest.mark.parametrize(
    ("wanted", "batches", "slots"),
    [
        ({"decode_batches": [8, 1, 4, 4]}, (1, 4, 8), 8),
        ({"decode_batches": [1, 4, 8], "slots": 8}, (1, 4, 8), 8),
        ({"decode_batches": [1]}, (1,), 1),
        ({"slots": 8}, (1, 4, 8), 8),
        ({"slots": 2}, (1, 2), 2),
        ({"slots": 4}, (1, 4), 4),
    ],
)
def test_the_widest_batch_takes_all_slots(wanted: dict[str, Any], batches: tuple[int, ...], slots: int) -> None:
    facts = fitted(**wanted, prefill_chunks=[512, 128])
    assert (facts.prefill_chunks, facts.decode_batches, facts.slots) == ((128, 512), batches, slots)
    assert facts.context_buckets == FACTS.context_buckets


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"prefill_chunks": [4]}, "4 is not from 8 to 8192"),
        ({"prefill_chunks": [2048]}, "2048 tokens are more than the context of 1024"),
        ({"decode_batches": [0, 4]}, "0 is not from 1 to 256"),
        ({"decode_batches": range(1, MOST_SIZES + 2)}, "9 sizes are more than 8; each is a function to compile"),
        ({"decode_batches": [1, 4], "slots": 8}, "8 slots where the widest batch is 4"),
        ({"decode_batches": [1, 8], "slots": 4}, "4 slots where the widest batch is 8"),
        ({"slots": 1000}, "1000 are more than 256"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidField, match=words):
        fitted(**wanted)


def test_a_chunk_of_the_book_is_cut_to_a_short_context_before() -> None:
    short = fit(find_recipe("f32-grouped"), frozenset(), 2048, 64)
    assert with_sizes(short, Sizes(decode_batches=(2,))).prefill_chunks == (64,)


@pytest.mark.parametrize(
    ("context", "wanted", "words"),
    [
        (0, {}, ""),
        (0, {"prefill_chunks": [64], "decode_batches": [1, 4], "slots": 4}, ""),
        (0, {"prefill_chunks": [128, 512], "slots": 8}, "+p128-512+b1-4-8"),
        (0, {"decode_batches": [2]}, "+b2"),
        (2048, {"decode_batches": [1, 8]}, "+c2048+b1-8"),
        (64, {}, "+c64"),
    ],
)
def test_names_tell_sizes_that_are_not_the_recipe_s_own(context: int, wanted: dict[str, Any], words: str) -> None:
    facts = fit(find_recipe("f32-grouped"), frozenset(), 2048, context)
    facts = with_sizes(facts, sizes_of(compiler_pb2.BuildVariantsRequest(**wanted)))
    assert unusual(facts, frozenset(), 2048) == words


def test_a_short_model_s_context_is_not_unusual_and_what_the_book_does_not_have_has_no_own_sizes() -> None:
    assert unusual(fit(find_recipe("f32-grouped"), frozenset(), 16, 0), frozenset(), 16) == ""
    assert unusual(replace(FACTS, name="by hand", decode_batches=(3,)), frozenset(), 2048) == ""
