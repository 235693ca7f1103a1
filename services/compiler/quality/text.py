"""Real text to compare on: two stories that are bundled here, so that figures are the same on every Python.

Two parts that share nothing: recipes are chosen on one and reported on the other, so that a choice cannot flatter its
own report. The stories are two of Arthur Conan Doyle's *The Adventures of Sherlock Holmes* (1892, public domain),
without markup: "A Scandal in Bohemia" to choose by, "The Red-Headed League" to report on.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from importlib.resources import files
from typing import Any, Final

NAME: Final = "holmes@3"
# Lengths of the pieces of text, in tokens. Four, for four slots; odd and unequal, so that chunks end raggedly and
# slots stand at different positions. About 400 rows of logits: 80 MB at a vocabulary of 49,152.
PIECE_TOKENS: Final = (61, 93, 155, 107)
# Tokens of a window.
WINDOW_TOKENS: Final = 128
# Pieces come from the first sixth of a story, windows from what follows: some 2,000 and 10,000 tokens of words.
_SHARE: Final = 6


class Part(StrEnum):
    """Which story."""

    CHOOSING = "choosing"
    REPORTING = "reporting"


# Some 5,000 predictions to report on, which tell a loss of 1 % of perplexity to about 0.1 % (ADR 96). Half as many to
# choose by: they are read within a search's time.
WINDOWS_OF: Final = {Part.REPORTING: 48, Part.CHOOSING: 24}


def read_text(part: Part) -> str:
    """The story of a part."""
    return files(__package__).joinpath("texts", f"{part}.txt").read_text(encoding="utf-8")


def pieces_of(tokenizer: Callable[..., Any], part: Part, context_tokens: int) -> list[list[int]]:
    """The few pieces whose logits are kept whole, cut to the context."""
    text = read_text(part)
    lengths = tuple(min(length, context_tokens) for length in PIECE_TOKENS)
    return cut_pieces(_tokens(tokenizer, text[: len(text) // _SHARE]), lengths)


def windows_of(tokenizer: Callable[..., Any], part: Part, context_tokens: int) -> list[list[int]]:
    """The many windows of which only likelihoods are kept, cut to the context; fewer where tokens are very long."""
    text = read_text(part)
    tokens = _tokens(tokenizer, text[len(text) // _SHARE :])
    length = min(WINDOW_TOKENS, context_tokens)
    return cut_pieces(tokens, (length,) * min(WINDOWS_OF[part], max(1, len(tokens) // length)))


def cut_pieces(tokens: list[int], lengths: tuple[int, ...]) -> list[list[int]]:
    """Pieces of the given lengths from places spread over the tokens.

    Raises:
        ValueError: the text is too short for them.
    """
    if sum(lengths) > len(tokens):
        raise ValueError(f"{len(tokens)} tokens of text cannot give pieces of {lengths}")
    stride = len(tokens) // len(lengths)
    return [tokens[min(index * stride, len(tokens) - length) :][:length] for index, length in enumerate(lengths)]


def _tokens(tokenizer: Callable[..., Any], text: str) -> list[int]:
    tokens: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return tokens
