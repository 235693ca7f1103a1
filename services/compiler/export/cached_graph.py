"""The functions of ABI "tradewind.generate/1" over a graph that takes its past and gives its present.

Exporters of ONNX write decoders so (Optimum's convention): past K and V [B, KV, P, d] in, present [B, KV, P + T, d]
out, with a mask [B, P + T] of what may be seen. Here the past is always a whole bucket of the cache, of which the mask
shows the rows that are written; the new rows are cut from the present's end and written into the cache. The graph
itself is not touched. See docs/adr/0014-decoders-with-a-past.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from services.compiler.export.decoder import CacheRows
from services.compiler.export.shapes import Shapes
from services.compiler.passes.form import PLAIN, Form


class PastDecoder(Protocol):
    """A decoder that takes its past.

    Attributes:
        cache_rows: what each layer keeps of a token.
        last_position: largest position it has.
    """

    cache_rows: Sequence[CacheRows]
    last_position: int

    def __call__(
        self, tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, past: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """Tokens [B, T], mask i64 [B, P + T], positions [B, T] and past K and V of each layer in turn, [B, KV, P, d];
        gives logits [B, T, V] and present K and V of each layer in turn."""


class CachedGraph(torch.nn.Module):
    """A decoder with its past as buffers, which become mutable globals of the compiled module."""

    def __init__(self, model: Any, cache: Any, shapes: Shapes, form: Form = PLAIN) -> None:
        """Wraps a decoder.

        Args:
            model: a PastDecoder and torch.nn.Module.
            cache: `layers` with buffers `k` and `v` [slots, rows, KV, d].
            shapes: sizes of the functions and the cache.
            form: what the passes make of it; those of attention and layers do not reach into a graph.
        """
        super().__init__()
        self.model, self.cache, self.shapes, self.form = model, cache, shapes, form

    def prefill(
        self, tokens: torch.Tensor, slot: torch.Tensor, start: torch.Tensor, length: torch.Tensor, context: int
    ) -> torch.Tensor:
        """A chunk of one prompt: tokens [1, T]; logits [1, V] of token length-1."""
        rows = start[:, None] + torch.arange(tokens.shape[1])[None]
        past = [buffer[:, :context].index_select(0, slot) for buffer in self._caches()]
        logits = self._step(tokens, rows, start, past, slot[:, None])
        return logits.index_select(1, length - 1)[:, 0]

    def decode(self, tokens: torch.Tensor, positions: torch.Tensor, context: int) -> torch.Tensor:
        """One token for each of the first B slots: tokens and positions [B]; logits [B, V]."""
        batch = tokens.shape[0]
        past = [buffer[:batch, :context] for buffer in self._caches()]
        slots = torch.arange(batch)[:, None]
        return self._step(tokens[:, None], positions[:, None], positions, past, slots)[:, 0]

    def _step(
        self,
        tokens: torch.Tensor,
        rows: torch.Tensor,
        start: torch.Tensor,
        past: list[torch.Tensor],
        slots: torch.Tensor,
    ) -> torch.Tensor:
        """Logits [B, T, V]; `start` [B] rows of each past are written, the others are masked."""
        context = past[0].shape[1]
        seen = torch.arange(context)[None] < start[:, None]
        mask = torch.cat([seen, torch.ones(tokens.shape, dtype=torch.bool)], 1).to(torch.int64)
        positions = rows.clamp(max=self.model.last_position)
        logits, present = self.model(tokens, mask, positions, [buffer.transpose(1, 2) for buffer in past])
        for buffer, new in zip(self._caches(), present, strict=True):
            buffer.index_put_((slots, rows), new[:, :, context:].transpose(1, 2))
        wide: torch.Tensor = logits.float()
        return wide

    def _caches(self) -> list[torch.Tensor]:
        layers: Any = self.cache.layers
        return [buffer for layer in layers for buffer in (layer.k, layer.v)]
