"""Pass "rotary-cache": queries and keys are turned, and keys and values written to the cache, by one kernel.

It takes the place of what splits the joined Q, K and V, turns two of them and scatters two. It is found in the traced
graph of a model with slot-attention by what it computes; where it is not found (a norm on queries, partial or
interleaved rotation, a bias) everything stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import getitem
from typing import Any, Final

import torch

from services.compiler.kernels.operators import ATTEND, ROTARY_CACHE
from services.compiler.kernels.rotary_cache import takes
from services.compiler.passes.graph_edits import argument, call, drop_type_checks, is_node

_ATEN: Final = torch.ops.aten
_NARROWING: Final = (torch.ops.prims.convert_element_type.default, _ATEN._to_copy.default)


@dataclass(frozen=True, slots=True)
class _Turned:
    """Heads [B, heads, T, width] turned by their positions: of which node, and by which angles [B, T, width]."""

    heads: Any
    cosines: Any
    sines: Any


def join_rotary_cache(program: Any) -> None:
    """Rewrites a decomposed program of one layer or more; changes its graph."""
    graph = program.graph
    drop_type_checks(graph)
    for attend in [node for node in graph.nodes if node.target is ATTEND]:
        _join(graph, attend)
    graph.eliminate_dead_code()
    graph.lint()


def _join(graph: Any, attend: Any) -> None:
    flat, keys, values, slots, positions = attend.args[:5]
    query = _turned(_untransposed(argument(flat, _ATEN.view.default)))
    key, value = _turned(_untransposed(_written(keys))), _untransposed(_written(values))
    if query is None or key is None or value is None or (query.cosines, query.sines) != (key.cosines, key.sines):
        return
    parts = [_part(heads) for heads in (query.heads, key.heads, value)]
    joined = parts[0][0] if parts[0] is not None else None
    if joined is None or parts != [(joined, 0), (joined, 1), (joined, 2)]:
        return
    width = int(keys.meta["val"].shape[-1])
    tokens, angles = flat.meta["val"].shape[0], query.cosines.meta["val"]
    if not takes(width) or angles.numel() != tokens * width:
        return
    with graph.inserting_before(attend):
        rows = call(graph, _ATEN.view.default, (joined, [tokens, joined.meta["val"].shape[-1]]))
        turns = [call(graph, _ATEN.view.default, (turn, [tokens, width])) for turn in (query.cosines, query.sines)]
        arguments = (rows, *turns, slots, positions, keys.args[0], values.args[0])
        made = call(graph, ROTARY_CACHE, arguments)
        results = [call(graph, getitem, (made, index)) for index in range(3)]
    for old, new in zip((flat, keys, values), results, strict=True):
        old.replace_all_uses_with(new)
    for old, new in zip((keys, values), results[1:], strict=True):
        graph.erase_node(old)
        # The program's signature knows what it returns by name.
        new.name = old.name


def _written(cache: Any) -> Any:
    """What a cache was given for the call, [B, T, KV, width] in f32; None when it is not written like that."""
    if cache.target is not _ATEN.index_put.default or len(cache.args) != 3:
        return None
    value = cache.args[2]
    return value.args[0] if value.target in _NARROWING else None


def _untransposed(node: Any) -> Any:
    """What a node is the transpose of, dimensions 1 and 2; None when it is not."""
    return node.args[0] if is_node(node, _ATEN.transpose.int) and node.args[1:] == (1, 2) else None


def _turned(node: Any) -> _Turned | None:
    """x · cos + (-second half of x, first half of x) · sin."""
    if not is_node(node, _ATEN.add.Tensor) or node.kwargs:
        return None
    straight, crossed = node.args
    if not (is_node(straight, _ATEN.mul.Tensor) and is_node(crossed, _ATEN.mul.Tensor)):
        return None
    heads, cosines = straight.args
    swapped, sines = crossed.args
    angles = [_over_heads(angle) for angle in (cosines, sines)]
    if None in angles or not _swaps_halves(swapped, heads):
        return None
    return _Turned(heads, *angles)


def _swaps_halves(node: Any, heads: Any) -> bool:
    """Whether a node is (-second half, first half) of the heads."""
    if not is_node(node, _ATEN.cat.default) or node.args[1:] not in ((-1,), (3,)) or len(node.args[0]) != 2:
        return False
    second, first = argument(node.args[0][0], _ATEN.neg.default), node.args[0][1]
    width = int(heads.meta["val"].shape[-1])
    return all(
        is_node(half, _ATEN.slice.Tensor)
        and half.args[:3] == (heads, 3, start)
        and half.meta["val"].shape[-1] == width // 2
        for half, start in ((first, 0), (second, width // 2))
    )


def _over_heads(angle: Any) -> Any:
    """The angles [B, T, width] behind [B, 1, T, width]; None when it is something else."""
    return argument(angle, _ATEN.unsqueeze.default) if is_node(angle) and angle.args[1:] == (1,) else None


def _part(heads: Any) -> tuple[Any, int] | None:
    """The tensor and the number of the part that heads [B, heads, T, width] were split from, whole and in order."""
    part = argument(_untransposed(heads), _ATEN.view.default)
    if not is_node(part, getitem) or not is_node(part.args[0], _ATEN.split_with_sizes.default):
        return None
    joined, sizes, *dimension = part.args[0].args
    along_rows = dimension in ([-1], [joined.meta["val"].dim() - 1])
    return (joined, int(part.args[1])) if len(sizes) == 3 and along_rows else None
