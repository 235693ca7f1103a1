"""Part of "product-edges": what makes the rows of a norm rounds them, in calls of two to eight rows.

A norm's factor only scales a row. So the product that ends a residual sum rounds sum · gain, and gives the sums of
squares of its groups; whoever reads the norm takes the factor from these. Behind "repeat-layer": a layer's last sum is
rounded for the next layer's first product. A single row is cheaper rounded by each workgroup that reads it.
"""

from __future__ import annotations

from operator import getitem
from typing import Any, Final

import torch

from services.compiler.kernels import few_rows
from services.compiler.kernels.formats import FORMATS, GROUP, W8
from services.compiler.kernels.operators import (
    GATED_LINEAR,
    GATED_ROUNDED_LINEAR,
    PACKED_LINEAR,
    ROUNDED_LINEAR,
    WEIGHTED_LINEAR,
)
from services.compiler.passes.graph_edits import call

_VIEW: Final = torch.ops.aten.view.default
_SLICE: Final = torch.ops.aten.slice.Tensor


def round_norms_where_made(program: Any) -> None:
    """Rewrites a program of all layers behind `round_where_made`; changes its graph."""
    graph = program.graph
    for product in [node for node in graph.nodes if node.target in (PACKED_LINEAR, GATED_LINEAR)]:
        _join(graph, product)
    graph.eliminate_dead_code()
    graph.lint()


def _join(graph: Any, product: Any) -> None:
    rows, weights, _, gain = (*product.args, None)[:4]
    maker = _maker(rows)
    if maker is None or gain is None or _added(product) is not None:
        return
    count, width = maker.meta["val"].shape
    if not few_rows.takes(count) or width % GROUP or tuple(rows.meta["val"].shape) != (count, width):
        return
    with graph.inserting_before(maker):
        made = call(graph, WEIGHTED_LINEAR, (*maker.args[:6], gain, _wide(weights)))
        result, *rounded, squares = [call(graph, getitem, (made, index)) for index in range(5)]
    with graph.inserting_before(product):
        new = _reader(graph, product, rounded, squares)
    for old, instead in ((product, new), (maker, result)):
        old.replace_all_uses_with(instead)
    graph.erase_node(product)
    # The program's signature knows what it returns by name.
    new.name = product.name


def _reader(graph: Any, product: Any, rounded: list[Any], squares: Any) -> Any:
    """The product that reads the norm, of rounded rows."""
    _, weights, scales, _, *others, epsilon = product.args
    if product.target is GATED_LINEAR:
        return call(graph, GATED_ROUNDED_LINEAR, (*rounded, weights, scales, squares, others[0], epsilon))
    return call(graph, ROUNDED_LINEAR, (*rounded, weights, scales, None, squares, epsilon))


def _maker(rows: Any) -> Any:
    """The product of rounded rows whose sum with something these are; None when it is something else."""
    while rows.target in (_VIEW, _SLICE) and rows.meta["val"].numel() == rows.args[0].meta["val"].numel():
        rows = rows.args[0]
    return rows if rows.target is ROUNDED_LINEAR and len(rows.args) == 6 and rows.args[5] is not None else None


def _added(product: Any) -> Any:
    return product.args[4] if product.target is PACKED_LINEAR and len(product.args) > 4 else None


def _wide(weights: Any) -> bool:
    """Whether rows are rounded to more than a byte for these weights."""
    form = next(form for form in FORMATS.values() if form.group_bytes == weights.meta["val"].shape[2])
    return form is W8
