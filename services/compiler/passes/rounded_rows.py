"""Part of "product-edges": what makes the rows of one product rounds them, in calls of few rows.

A product whose halves are gated for the next one, and the attention before its projection. Rounding is then no
dispatch of its own, and rows go from one to the next in a quarter of the bytes. In prompts a workgroup has more rows
than fit its stack, and rounding is a small part of the time: they stay as they were.
"""

from __future__ import annotations

from operator import getitem
from typing import Any, Final

import torch

from services.compiler.kernels import few_rows
from services.compiler.kernels.formats import FORMATS, GROUP, W8, Format
from services.compiler.kernels.operators import (
    ATTEND,
    ATTEND_ROUNDED,
    GATED_LINEAR,
    PACKED_LINEAR,
    ROUNDED_LINEAR,
)
from services.compiler.passes.graph_edits import call

_VIEW: Final = torch.ops.aten.view.default


def round_where_made(program: Any) -> None:
    """Rewrites a program behind `join_edges`; changes its graph."""
    graph = program.graph
    for product in [node for node in graph.nodes if node.target is PACKED_LINEAR]:
        _join(graph, product)
    graph.eliminate_dead_code()
    graph.lint()


def _join(graph: Any, product: Any) -> None:
    rows, weights, scales, gain, added, gated, _ = (*product.args, None, None, False, 0.0)[:7]
    count, inputs = product.meta["val"].shape[0], weights.meta["val"].shape[1] * GROUP
    maker = _maker(rows)
    if maker is None or gain is not None or not (count == 1 or few_rows.takes(count)):
        return
    wide = _form(weights) is W8
    with graph.inserting_before(product):
        made = _gate(graph, maker, wide) if gated else _attention(graph, maker, wide)
        if made is None:
            return
        parts = [call(graph, getitem, (made, index)) for index in range(3)]
        sizes = (inputs, inputs // GROUP, inputs // GROUP)
        flat = [call(graph, _VIEW, (part, [count, size])) for part, size in zip(parts, sizes, strict=True)]
        new = call(graph, ROUNDED_LINEAR, (*flat, weights, scales, added))
    product.replace_all_uses_with(new)
    graph.erase_node(product)


def _maker(rows: Any) -> Any:
    """The node whose numbers these are, seen from nowhere else."""
    while len(rows.users) == 1 and rows.target is _VIEW:
        rows = rows.args[0]
    return rows if len(rows.users) == 1 else None


def _gate(graph: Any, maker: Any, wide: bool) -> Any:
    """The product before with its result gated and rounded; None when it is something else."""
    if maker.target is not PACKED_LINEAR:
        return None
    rows, weights, scales, gain, added, gated, epsilon = (*maker.args, None, None, False, 0.0)[:7]
    if added is not None or gated or maker.meta["val"].shape[1] // 2 % GROUP:
        return None
    return call(graph, GATED_LINEAR, (rows, weights, scales, gain, wide, epsilon))


def _attention(graph: Any, maker: Any, wide: bool) -> Any:
    """The attention before with its result rounded; None when it is something else."""
    if maker.target is not ATTEND or maker.args[6:] == (True,) or maker.meta["val"].shape[2] % GROUP:
        return None
    return call(graph, ATTEND_ROUNDED, (*maker.args[:5], wide, maker.args[5]))


def _form(weights: Any) -> Format:
    return next(form for form in FORMATS.values() if form.group_bytes == weights.meta["val"].shape[2])
