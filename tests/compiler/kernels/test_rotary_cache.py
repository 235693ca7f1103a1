"""Rotation and cache are joined where they are what the kernel computes, and left alone where they are not."""

from __future__ import annotations

from typing import Any

import torch

from services.compiler.kernels.operators import ROTARY_CACHE
from services.compiler.passes.rotary_cache import join_rotary_cache
from services.compiler.passes.slot_attention import WholeCache, slot_attention

BATCH, TOKENS, HEADS, KV_HEADS, WIDTH = 2, 3, 4, 2, 16


class _Attention(torch.nn.Module):
    """Attention of a layer as transformers writes it, with something done to queries first."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor
        cache = torch.zeros(BATCH, KV_HEADS, 8, WIDTH, dtype=torch.float16)
        self.register_buffer("keys", cache)
        self.register_buffer("values", cache.clone())

    def forward(self, rows: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        parts = rows.split([heads * WIDTH for heads in (HEADS, KV_HEADS, KV_HEADS)], -1)
        query, key, value = (part.view(BATCH, TOKENS, -1, WIDTH).transpose(1, 2) for part in parts)
        query = query if self._factor == 1 else query * self._factor
        query, key = (_turned(heads, cos.unsqueeze(1), sin.unsqueeze(1)) for heads in (query, key))
        slots = torch.arange(BATCH)[:, None]
        buffers: Any = [(self.keys, self.values)]
        cache = WholeCache(buffers, slots, places, 8)
        out, _ = slot_attention(slots, places)(self, query, *cache.update(key, value, 0), None)
        return out


def _turned(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = heads.shape[-1] // 2
    return heads * cos + torch.cat((-heads[..., half:], heads[..., :half]), -1) * sin


def _graph(factor: float) -> Any:
    angles = torch.zeros(BATCH, TOKENS, WIDTH)
    rows = torch.zeros(BATCH, TOKENS, (HEADS + 2 * KV_HEADS) * WIDTH)
    places = torch.zeros(BATCH, TOKENS, dtype=torch.long)
    program = torch.export.export(_Attention(factor), (rows, angles, angles.clone(), places), strict=False)
    program = program.run_decompositions({})
    join_rotary_cache(program)
    # What the signature names must still be there.
    returned = [node.name for node in next(iter(reversed(program.graph.nodes))).args[0]]
    assert [spec.arg.name for spec in program.graph_signature.output_specs] == returned
    return program.graph


def test_one_kernel_turns_and_keeps() -> None:
    graph = _graph(1)
    (joined,) = [node for node in graph.nodes if node.target is ROTARY_CACHE]
    rows, cosines, sines, slots, positions, keys, values = joined.args
    assert [node.meta["val"].shape[0] for node in (rows, cosines, sines, slots, positions)] == [BATCH * TOKENS] * 5
    assert (keys.name, values.name) == ("b_keys", "b_values")
    left = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert not left & {"aten.index_put.default", "aten.split_with_sizes.default", "aten.cat.default"}


def test_queries_that_are_changed_before_they_are_turned_stay_apart() -> None:
    targets = {node.target for node in _graph(2).nodes}
    assert ROTARY_CACHE not in targets and torch.ops.aten.index_put.default in targets
