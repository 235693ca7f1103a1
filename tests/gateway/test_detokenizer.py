"""Incremental detokenisation: pieces add up to the whole text and no piece holds half a character."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from services.gateway.core.detokenizer import (
    MAX_PENDING_TOKENS,
    ByteLevelDetokenizer,
    Detokenizer,
    WindowDetokenizer,
    byte_alphabet,
    token_bytes,
)
from services.gateway.text.tokenizer import TextModel
from tests.gateway.tokenizers_made import byte_level, sentence_piece

BYTE_LEVEL = TextModel(byte_level().to_str(), None, ())
SENTENCE_PIECE = TextModel(sentence_piece().to_str(), None, ())
EMOJI = "a👩‍👩‍👧‍👦b🎉 é東京"


def pieces_of(detokenizer: Detokenizer, ids: list[int]) -> list[str]:
    return [*(detokenizer.push(i) for i in ids), detokenizer.finish()]


def test_the_kind_follows_the_tokenizer() -> None:
    assert isinstance(BYTE_LEVEL.detokenizer(), ByteLevelDetokenizer)
    assert isinstance(SENTENCE_PIECE.detokenizer(), WindowDetokenizer)


def test_byte_alphabet_is_the_libraries() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = byte_alphabet()
    assert set(alphabet) == set(ByteLevel.alphabet())
    assert sorted(alphabet.values()) == list(range(256))
    assert token_bytes("Ġ", alphabet) == b" "


@pytest.mark.parametrize("model", [BYTE_LEVEL, SENTENCE_PIECE], ids=["byte-level", "sentence-piece"])
def test_emoji_split_over_tokens_come_out_whole(model: TextModel) -> None:
    ids = model.encode(EMOJI, special=False)
    assert len(ids) > len(EMOJI)
    pieces = pieces_of(model.detokenizer(), ids)
    assert "".join(pieces) == EMOJI
    assert all("\ufffd" not in piece for piece in pieces)


@given(st.text(max_size=60))
@settings(deadline=None)
def test_byte_level_text_comes_back(text: str) -> None:
    ids = BYTE_LEVEL.encode(text, special=False)
    assert "".join(pieces_of(BYTE_LEVEL.detokenizer(), ids)) == BYTE_LEVEL.decode(ids)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_byte_level_of_any_tokens_is_what_the_tokenizer_says(data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, BYTE_LEVEL.vocabulary_size - 1), max_size=30))
    assert "".join(pieces_of(BYTE_LEVEL.detokenizer(), ids)) == BYTE_LEVEL.decode(ids)


@given(st.text("abc XYZ.é東🎉ß\n", max_size=40))
@settings(deadline=None)
def test_windowed_text_comes_back(text: str) -> None:
    ids = SENTENCE_PIECE.encode(text, special=False)
    assert "".join(pieces_of(SENTENCE_PIECE.detokenizer(), ids)) == SENTENCE_PIECE.decode(ids)


def test_endless_broken_bytes_do_not_pile_up() -> None:
    tokenizer = Tokenizer.from_str(sentence_piece().to_str())
    detokenizer = WindowDetokenizer(tokenizer, ())
    broken = tokenizer.token_to_id("<0xF0>")
    out = [detokenizer.push(broken) for _ in range(100)]
    assert "".join(out).count("\ufffd") >= 100 - MAX_PENDING_TOKENS
    assert detokenizer.kept_tokens <= 2 * MAX_PENDING_TOKENS


def test_half_a_character_at_the_end_becomes_a_replacement() -> None:
    ids = BYTE_LEVEL.encode("é", special=False)
    assert len(ids) == 2
    assert pieces_of(BYTE_LEVEL.detokenizer(), ids[:1]) == ["", "\ufffd"]
