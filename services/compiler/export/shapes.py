"""Which functions a module offers and how large its cache is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tradewind.domain.manifest import Function

# Name of the parameter archive inside compiled modules.
WEIGHTS_SCOPE: Final = "model"


@dataclass(frozen=True, slots=True)
class Shapes:
    """Sizes that the functions of a module share.

    Attributes:
        prefill_chunks: tokens a prefill call takes, ascending.
        decode_batches: sequences a decode call takes, ascending.
        context_buckets: cache rows a call attends to, ascending.
        slots: sequences the cache holds.
    """

    prefill_chunks: tuple[int, ...]
    decode_batches: tuple[int, ...]
    context_buckets: tuple[int, ...]
    slots: int

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, Any]) -> Shapes:
        """From the fields as JSON carries them to a job."""
        chunks, batches, buckets = (
            tuple(sizes[name]) for name in ("prefill_chunks", "decode_batches", "context_buckets")
        )
        return cls(chunks, batches, buckets, int(sizes["slots"]))

    @property
    def cache_tokens(self) -> int:
        """Rows of the cache for a slot: padding of a last prefill chunk may lie past the context."""
        return self.context_buckets[-1] + self.prefill_chunks[-1]

    @property
    def functions(self) -> tuple[Function, ...]:
        """Every function of the module."""
        prefills = [
            Function(f"prefill_t{tokens}_c{context}", "prefill", tokens, 1, context)
            for tokens in self.prefill_chunks
            for context in self.context_buckets
            if tokens <= context
        ]
        decodes = [
            Function(f"decode_b{batch}_c{context}", "decode", 1, batch, context)
            for batch in self.decode_batches
            for context in self.context_buckets
        ]
        return (*prefills, *decodes)
