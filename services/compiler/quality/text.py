"""Real text to compare on: Python's own language reference, which comes with every Python, and a story bundled here.

Two parts that share nothing: recipes are chosen on one and reported on the other, so that a choice cannot flatter its
own report. The stories are two of Arthur Conan Doyle's *The Adventures of Sherlock Holmes* (1892, public domain),
one for each part, without markup.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from importlib.resources import files
from typing import Any, Final

NAME: Final = "python-topics+holmes@2"
# Lengths of the pieces of text, in tokens. Four, for four slots; odd and unequal, so that chunks end raggedly and
# slots stand at different positions. About 400 rows of logits: 80 MB at a vocabulary of 49,152.
PIECE_TOKENS: Final = (61, 93, 155, 107)
# Tokens of a window.
WINDOW_TOKENS: Final = 128
# Tokenising all topics takes seconds: pieces come from the first sixth of the text, windows from the second.
_SHARE: Final = 6


class Part(StrEnum):
    """Which half of the topics, and which story."""

    CHOOSING = "choosing"
    REPORTING = "reporting"


# Windows of topics, and as many of a story: some 5,000 predictions to report on, which tell a loss
# of 1 % of perplexity to about 0.1 % (ADR 96). Half as many to choose by: they are read within a search's time.
WINDOWS_OF_EACH: Final = {Part.REPORTING: 24, Part.CHOOSING: 12}


def read_text(part: Part) -> str:
    """All topics of a part."""
    from pydoc_data.topics import topics

    names = sorted(topics)
    return "\n\n".join(str(topics[name]) for name in names[0 if part is Part.CHOOSING else 1 :: 2])


def read_story(part: Part) -> str:
    """The story of a part."""
    return files(__package__).joinpath("texts", f"{part}.txt").read_text(encoding="utf-8")


def pieces_of(tokenizer: Callable[..., Any], part: Part, context_tokens: int) -> list[list[int]]:
    """The few pieces whose logits are kept whole, cut to the context."""
    text = read_text(part)
    lengths = tuple(min(length, context_tokens) for length in PIECE_TOKENS)
    return cut_pieces(_tokens(tokenizer, text[: len(text) // _SHARE]), lengths)


def windows_of(tokenizer: Callable[..., Any], part: Part, context_tokens: int) -> list[list[int]]:
    """The many windows of which only likelihoods are kept, topics and story in turns, cut to the context."""
    text = read_text(part)
    lengths = (min(WINDOW_TOKENS, context_tokens),) * WINDOWS_OF_EACH[part]
    sources = (text[len(text) // _SHARE : 2 * len(text) // _SHARE], read_story(part))
    cut = [cut_pieces(_tokens(tokenizer, source), lengths) for source in sources]
    return [window for pair in zip(*cut, strict=True) for window in pair]


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
