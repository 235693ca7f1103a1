"""Pass "slot-attention": attention straight over the cache, as far as its rows are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from services.compiler.kernels.operators import ATTEND
from services.compiler.passes.cache_in_place import SlotCache
from tradewind.domain.errors import UnsupportedModel


class WholeCache(SlotCache):
    """The cache as `attend` sees it: all slots and rows, f16 [slots, KV, rows, d]."""

    def _write(self, buffer: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        heads = torch.arange(buffer.shape[1])
        places = (self._slots[..., None], heads, self._rows[..., None])
        buffer.index_put_(places, new.transpose(1, 2).to(buffer.dtype))
        return buffer


def by_heads(slots: int, rows: int) -> Callable[[tuple[int, int]], torch.Tensor]:
    """Makes zeroed buffers for `WholeCache` from (KV, d) of a token."""
    return lambda head: torch.zeros((slots, head[0], rows, head[1]), dtype=torch.float16)


def slot_attention(slots: torch.Tensor, rows: torch.Tensor) -> Callable[..., tuple[torch.Tensor, None]]:
    """An attention function of transformers for one call.

    Args:
        slots: i64 [B, 1], the slot of each sequence.
        rows: i64 [B, T], the row of each token; it sees rows up to its own. Rows of a sequence follow each other.
    """
    of_token = slots.expand(rows.shape).reshape(-1)

    def attention(
        _module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        _mask: torch.Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        sliding_window: int | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """Query [B, H, T, d]; key and value are the whole cache, f16 [slots, KV, rows, d]; gives [B, T, H, d]."""
        if softcap is not None or sliding_window is not None or query.shape[-1] != value.shape[-1]:
            raise UnsupportedModel(
                "slot-attention has no soft-cap, no sliding window and one head width; use a recipe with "
                "grouped-attention, such as f32-grouped"
            )
        batch, heads, tokens, width = query.shape
        flat = query.transpose(1, 2).reshape(batch * tokens, heads, width)
        scale = width**-0.5 if scaling is None else scaling
        follows = batch == 1 and tokens > 1
        out = ATTEND(flat, key, value, of_token, rows.reshape(-1), scale, follows)
        return out.reshape(batch, tokens, heads, width), None

    return attention
