"""Reading and writing nodes of traced graphs, as passes need it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Target = Callable[..., Any]


def is_node(value: Any, target: Target | None = None) -> bool:
    """Whether a value is a node of a graph, and of that target when one is given."""
    return isinstance(value, torch.fx.Node) and (target is None or value.target is target)


def argument(node: Any, target: Target) -> Any:
    """The first argument of a node with that target; None when it is something else."""
    return node.args[0] if is_node(node, target) else None


def call(graph: Any, target: Target, arguments: tuple[Any, ...]) -> Any:
    """A new node, and the shapes of what it gives."""
    node = graph.call_function(target, arguments)
    known = [value.meta["val"] if isinstance(value, torch.fx.Node) else value for value in arguments]
    modes = [value.fake_mode for value in known if hasattr(value, "fake_mode")]
    if not modes:
        node.meta["val"] = target(*known)
        return node
    with modes[0]:
        node.meta["val"] = target(*known)
    return node


def drop_type_checks(graph: Any) -> None:
    """Takes out what says which types there were while the graph was traced: it holds what it says it of."""
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            graph.erase_node(node)
