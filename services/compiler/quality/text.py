"""Real text to compare on: Python's own language reference, which comes with every Python.

Two parts that share no topic: recipes are chosen on one and reported on the other, so that a choice cannot flatter its
own report.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

NAME: Final = "python-topics@1"


class Part(StrEnum):
    """Which half of the topics."""

    CHOOSING = "choosing"
    REPORTING = "reporting"


def read_text(part: Part) -> str:
    """All text of a part."""
    from pydoc_data.topics import topics

    names = sorted(topics)
    return "\n\n".join(str(topics[name]) for name in names[0 if part is Part.CHOOSING else 1 :: 2])


def cut_pieces(tokens: list[int], lengths: tuple[int, ...]) -> list[list[int]]:
    """Pieces of the given lengths from places spread over the tokens.

    Raises:
        ValueError: the text is too short for them.
    """
    if sum(lengths) > len(tokens):
        raise ValueError(f"{len(tokens)} tokens of text cannot give pieces of {lengths}")
    stride = len(tokens) // len(lengths)
    return [tokens[min(index * stride, len(tokens) - length) :][:length] for index, length in enumerate(lengths)]
