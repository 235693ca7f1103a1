"""An ONNX decoder with a cache, as export takes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from services.compiler.export.decoder import CacheRows
from services.compiler.sources.onnx.module import OnnxModule
from services.compiler.sources.onnx.signature import DecoderSignature


class OnnxDecoder(torch.nn.Module):
    """See `services.compiler.export.cached_graph.PastDecoder`."""

    def __init__(self, graph: OnnxModule, signature: DecoderSignature, context_tokens: int) -> None:
        """Over a graph with this signature."""
        super().__init__()
        self.graph = graph
        self._signature = signature
        self.last_position = context_tokens - 1
        self.cache_rows = [CacheRows(layer.key, layer.value) for layer in signature.layers]

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, past: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits and present K and V of each layer in turn."""
        signature = self._signature
        given = {signature.ids: tokens, signature.mask: mask, signature.positions: positions}
        names = [name for layer in signature.layers for name in layer.past]
        given.update(zip(names, past, strict=True))
        answer = dict(zip(signature.outputs, self.graph(*(given[name] for name in signature.inputs)), strict=True))
        return answer[signature.logits], [answer[name] for layer in signature.layers for name in layer.present]
