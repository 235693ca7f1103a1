"""Pass "product-edges": what stands before and behind a packed product becomes part of it.

An RMSNorm or a SwiGLU gate that only one product reads, and a sum that only adds to its result. They are found in the
traced graph by what they compute, whatever modules they came from; what is not found stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import getitem
from typing import Any, Final

import torch

from services.compiler.kernels.operators import PACKED_LINEAR
from services.compiler.passes.graph_edits import argument, call, drop_type_checks, is_node

_ATEN: Final = torch.ops.aten
_VIEW: Final = _ATEN.view.default
# Operations that move rows about and leave their numbers, so that a norm may be taken after them.
_MOVES: Final = (_VIEW, _ATEN.slice.Tensor)


@dataclass(frozen=True, slots=True)
class _Source:
    """Rows that a product may read in the place of what was made of them."""

    rows: Any
    gain: Any = None
    gated: bool = False
    epsilon: float = 0.0


def join_edges(program: Any) -> None:
    """Rewrites a decomposed program of one layer or more; changes its graph."""
    graph = program.graph
    drop_type_checks(graph)
    for product in [node for node in graph.nodes if node.target is PACKED_LINEAR]:
        _join_sum(graph, _join_rows(graph, product))
    graph.eliminate_dead_code()
    graph.lint()


def _join_rows(graph: Any, product: Any) -> Any:
    """The product reads what its rows were made of; the node that it is now."""
    made, moves = _behind_moves(product.args[0])
    found = _norm(made) or _gate(made)
    if found is None or not all(_keeps_rows(move, found.gated) for move in moves):
        return product
    with graph.inserting_before(product):
        rows = found.rows
        for move in [] if found.gated else moves:
            rows = call(graph, move.target, (rows, *move.args[1:]))
        rows = call(graph, _VIEW, (rows, [-1, _width(rows)]))
        weights = product.args[1:3]
        new = call(graph, PACKED_LINEAR, (rows, *weights, found.gain, None, found.gated, found.epsilon))
    product.replace_all_uses_with(new)
    graph.erase_node(product)
    return new


def _join_sum(graph: Any, product: Any) -> None:
    """The product adds to the other term of a sum that nothing else than it goes into."""
    result = product
    while (user := _only_user(result)) is not None and user.target is _VIEW:
        result = user
    if user is None or user.target is not _ATEN.add.Tensor or user.kwargs:
        return
    (other,) = [term for term in user.args if term is not result] or [None]
    if not is_node(other) or other.meta["val"].shape != result.meta["val"].shape:
        return
    with graph.inserting_before(user):
        flat = call(graph, _VIEW, (other, list(product.meta["val"].shape)))
        given = (*product.args, None, None, False, 0.0)[:7]
        new = call(graph, PACKED_LINEAR, (*given[:4], flat, *given[5:]))
        whole = call(graph, _VIEW, (new, list(user.meta["val"].shape)))
    user.replace_all_uses_with(whole)
    graph.erase_node(user)


def _behind_moves(node: Any) -> tuple[Any, list[Any]]:
    """What the moves before a node start from, and the moves in their order."""
    moves: list[Any] = []
    while node.target in _MOVES:
        moves.insert(0, node)
        node = node.args[0]
    return node, moves


def _keeps_rows(move: Any, all_of_them: bool) -> bool:
    """Whether a move leaves rows whole, and all of them there."""
    value, before = move.meta["val"], move.args[0].meta["val"]
    if value.shape[-1] != before.shape[-1]:
        return False
    return move.target is _VIEW or not (all_of_them or move.args[1] in (-1, before.dim() - 1))


def _norm(node: Any) -> _Source | None:
    """x · rsqrt(mean(x²) + epsilon) · gain."""
    for gain, scaled in _factors(node):
        if gain.meta["val"].dim() != 1:
            continue
        for rows, inverse in _factors(scaled):
            epsilon = _epsilon(rows, inverse)
            if epsilon is not None:
                return _Source(rows, gain, epsilon=epsilon)
    return None


def _epsilon(rows: Any, inverse: Any) -> float | None:
    """Epsilon when a node is rsqrt(mean(rows²) + epsilon) over the last dimension."""
    mean = argument(argument(inverse, _ATEN.rsqrt.default), _ATEN.add.Tensor)
    if mean is None or mean.target is not _ATEN.mean.dim or mean.args[1:] != ([-1], True):
        return None
    square, epsilon = mean.args[0], inverse.args[0].args[1]
    alike = square.target is _ATEN.pow.Tensor_Scalar and square.args == (rows, 2)
    return float(epsilon) if alike and isinstance(epsilon, float) else None


def _gate(node: Any) -> _Source | None:
    """silu(first half) · second half, of one tensor that was split in two."""
    for silu, up in _factors(node):
        gate = argument(silu, _ATEN.silu.default)
        if gate is None or not (_is_part(gate, 0) and _is_part(up, 1)) or gate.args[0] is not up.args[0]:
            continue
        whole, sizes, *dimension = gate.args[0].args
        if len(sizes) == 2 and sizes[0] == sizes[1] and dimension in ([-1], [whole.meta["val"].dim() - 1]):
            return _Source(whole, gated=True)
    return None


def _is_part(node: Any, number: int) -> bool:
    return is_node(node, getitem) and is_node(node.args[0], _ATEN.split_with_sizes.default) and node.args[1] == number


def _factors(node: Any) -> Iterator[tuple[Any, Any]]:
    """Both orders of a product of two tensors."""
    if node.target is _ATEN.mul.Tensor and all(is_node(term) for term in node.args):
        one, other = node.args
        yield from ((one, other), (other, one))


def _only_user(node: Any) -> Any:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _width(node: Any) -> int:
    return int(node.meta["val"].shape[-1])
