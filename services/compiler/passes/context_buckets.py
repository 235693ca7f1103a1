"""Pass "context-buckets": functions for several context lengths, of which a call takes the shortest that holds it.

A function of a bucket attends to that many rows of the cache, whatever is in them. Without the pass there is one
bucket, the whole context: right for an attention whose cost goes by the rows that are written. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from tradewind.domain.passes import CONTEXT_BUCKETS


def buckets_of(passes: Sequence[str], wanted: Sequence[int], context_tokens: int) -> tuple[int, ...]:
    """The context lengths of a module's functions, ascending; the last is the whole context.

    Args:
        passes: of the recipe.
        wanted: its buckets, ascending.
        context_tokens: longest sequence that the variant is to serve.
    """
    shorter = (bucket for bucket in wanted if bucket < context_tokens)
    return (*shorter, context_tokens) if CONTEXT_BUCKETS in passes else (context_tokens,)
