"""What is timed: the same work for every contender."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Tokens in the cache when decoding begins, and steps of one sample.
DECODE_FROM_TOKENS: Final = 128
DECODE_STEPS: Final = 32


@dataclass(frozen=True, slots=True)
class Case:
    """One piece of work: a prompt of `tokens`, or `DECODE_STEPS` steps of `batch` sequences together."""

    name: str
    phase: str
    tokens: int
    batch: int

    @property
    def tokens_made(self) -> int:
        """Tokens that a sample's rate counts."""
        return self.tokens if self.phase == "prefill" else DECODE_STEPS * self.batch


CASES: Final = (
    Case("prefill 128", "prefill", 128, 1),
    Case("prefill 512", "prefill", 512, 1),
    Case("decode 1", "decode", 1, 1),
    Case("decode 4", "decode", 1, 4),
    Case("decode 8", "decode", 1, 8),
)
