"""Pass "fused-attention": attention as one operator, which IREE lowers to its own fused loop."""

from __future__ import annotations

from typing import Any

import torch

from services.compiler.passes.grouped_attention import within_window
from tradewind.domain.errors import UnsupportedModel


def fused_attention(
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
    """As `grouped_attention`; K and V are repeated for each query head, which the operator wants.

    Raises:
        UnsupportedModel: a soft-cap, which the operator does not have.
    """
    if softcap is not None:
        raise UnsupportedModel("fused-attention has no soft-cap; use a recipe with grouped-attention, as f32-grouped")
    if sliding_window is not None:
        attention_mask = within_window(attention_mask, sliding_window)
    group = query.shape[1] // key.shape[1]
    wide_key, wide_value = (_repeated(part, group) for part in (key, value))
    mask = attention_mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    answer = torch.nn.functional.scaled_dot_product_attention(query, wide_key, wide_value, mask, scale=scaling)
    return answer.transpose(1, 2), None


def _repeated(rows: torch.Tensor, group: int) -> torch.Tensor:
    """[B, KV, S, d] → [B, KV · group, S, d], each head beside its copies."""
    batch, heads, count, width = rows.shape
    return rows[:, :, None].expand(batch, heads, group, count, width).reshape(batch, heads * group, count, width)
