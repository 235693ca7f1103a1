"""Graph forms that IREE compiles well: attention over grouped heads, linears over flat rows, a cache with slots.

They change the form of the computation and never its result. Nothing here is registered or swapped at import.
"""

from __future__ import annotations

from typing import Any, Final

import torch

ATTENTION_NAME: Final = "tradewind_grouped"

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
    """Attention as two matmuls and a softmax in f32, query heads grouped on their KV head (no repeat of K and V).

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


class FlatLinear(torch.nn.Linear):
    """A linear layer that sees [B·T, D]: with [B, T, D] IREE packs the weight once for each row of the batch."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[…, D] in, […, out] out."""
        weight = self.weight.to(rows.dtype)
        flat = torch.nn.functional.linear(rows.reshape(-1, rows.shape[-1]), weight, self.bias)
        return flat.reshape(*rows.shape[:-1], flat.shape[-1])


def flatten_linears(model: torch.nn.Module) -> None:
    """Turns every plain linear layer of the model into a FlatLinear, sharing its weights."""
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = FlatLinear


def narrow_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Keeps the weights of linear layers in a narrower type than the one computed in, which stays f32.

    For CPUs that cannot compute in the narrower type: half the memory, and the arithmetic of f32. A weight that is tied
    to an embedding narrows it too; its rows are widened again as they leave it.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.to(dtype)
        if isinstance(module, torch.nn.Embedding):
            module.register_forward_hook(lambda _module, _args, rows: rows.float())


class SlotCache:
    """What transformers asks of a cache, over buffers [slots, rows, KV, d] that the exported function mutates.

    Attributes:
        is_compileable: transformers takes the mask as given.
    """

    is_compileable = True

    def __init__(
        self, buffers: list[tuple[torch.Tensor, torch.Tensor]], slots: torch.Tensor, rows: torch.Tensor, context: int
    ) -> None:
        """A view on the cache for one call.

        Args:
            buffers: K and V of every layer.
            slots: i64 [B, 1], the slot each row of the batch writes; None-free.
            rows: i64 [B, T], where each token is written.
            context: rows that are attended to.
        """
        self._buffers = buffers
        self._slots = slots
        self._rows = rows
        self._context = context
        self.layers: list[Any] = []
        self.is_sliding = [False] * len(buffers)

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes K and V [B, KV, T, d] of a layer and gives what is attended to, [B, KV, context, d]."""
        keys, values = self._buffers[layer]
        return self._write(keys, key), self._write(values, value)

    def _write(self, buffer: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        buffer.index_put_((self._slots, self._rows), new.transpose(1, 2))
        return self._read(buffer[:, : self._context]).transpose(1, 2)

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def get_seq_length(self, *_: Any) -> int:
        """Unused by the exported graph: positions and mask are given."""
        return 0

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        """Length and offset of the mask."""
        return self._context, 0

    def get_max_cache_shape(self, *_: Any) -> int:
        """Rows attended to."""
        return self._context


class OneSlotCache(SlotCache):
    """The cache as a prefill call sees it: one slot, whose number is an argument."""

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.index_select(0, self._slots[0])


class FirstSlotsCache(SlotCache):
    """The cache as a decode call sees it: the first B slots."""

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        return rows[: self._slots.shape[0]]
