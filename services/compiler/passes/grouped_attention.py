"""Pass "grouped-attention": attention as two matmuls and a softmax, query heads grouped on their KV head."""

from __future__ import annotations

from typing import Any, Final

import torch

# Added to scores of rows that must not be seen. Finite, so that a row without any visible entry stays a number.
_MASKED_SCORE: Final = -1e9


def grouped_attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention with a softmax in f32 and no repeat of K and V.

    Args:
        _module: the attention layer; unused, part of the interface.
        query: [B, H, T, d].
        key: [B, KV, S, d].
        value: [B, KV, S, d].
        attention_mask: bool [B, 1, T, S], true where a row may be seen.
        scaling: factor of the scores; 1/sqrt(d) when None.
        softcap: scores are bent to stay within ± this, as Gemma 2 does; None for straight ones.
        sliding_window: each token sees itself and this many less one before it; None for all of them.

    Returns:
        [B, T, H, d], and None for the attention weights.
    """
    batch, heads, tokens, width = query.shape
    kv_heads, rows = key.shape[1], key.shape[2]
    group = heads // kv_heads
    grouped = query.reshape(batch, kv_heads, group * tokens, width)
    scores = torch.matmul(grouped, key.transpose(2, 3)).float() * (width**-0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if sliding_window is not None:
        attention_mask = within_window(attention_mask, sliding_window)
    mask = attention_mask.expand(batch, 1, tokens, rows)[:, :, None]
    mask = mask.expand(batch, 1, group, tokens, rows).reshape(batch, 1, group * tokens, rows)
    weights = torch.softmax(scores.masked_fill(~mask, _MASKED_SCORE), -1).to(value.dtype)
    return torch.matmul(weights, value).reshape(batch, heads, tokens, width).transpose(1, 2), None


def within_window(causal: torch.Tensor, window: int) -> torch.Tensor:
    """What of a causal mask [B, 1, T, S] lies in a sliding window: rows are positions, so a query's is their number."""
    positions = causal.sum(-1, keepdim=True)
    return torch.logical_and(causal, torch.arange(causal.shape[-1]) >= positions - window)
