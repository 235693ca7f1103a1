"""Branches whose condition is known before any input: the one that runs is put where the `If` stood.

Optimum's merged decoders carry two graphs under one `If`, chosen by the input `use_cache_branch`: with the cache or
without. The one with the cache also takes an empty one, so that it alone is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

# Optimum's name for "there is a past".
CACHE_BRANCH: Final = "use_cache_branch"
# Branches inside of branches deeper than this are in no exporter's graph.
_DEEPEST: Final = 8


def choose_branches(model: Any) -> None:
    """Replaces each `If` of onnx.ModelProto whose condition is a constant by its branch, in place; leaves others."""
    _fix_cache_branch(model.graph)
    for _ in range(_DEEPEST):
        known = dict(_conditions(model.graph))
        if not any(_decided(node, known) for node in model.graph.node):
            return
        _inline(model.graph, known)


def _fix_cache_branch(graph: Any) -> None:
    """Makes the switch of a merged decoder a constant: with the cache."""
    from onnx import TensorProto, helper

    for at, value in enumerate(graph.input):
        if value.name == CACHE_BRANCH:
            shape = [size.dim_value or 1 for size in value.type.tensor_type.shape.dim]
            del graph.input[at]
            graph.initializer.append(helper.make_tensor(CACHE_BRANCH, TensorProto.BOOL, shape, [True]))
            return


def _conditions(graph: Any) -> Iterator[tuple[str, bool]]:
    """Names of the single truth values that are constants."""
    from onnx import TensorProto, numpy_helper

    constants = [(tensor.name, tensor) for tensor in graph.initializer]
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants.append((node.output[0], node.attribute[0].t))
    for name, tensor in constants:
        if tensor.data_type == TensorProto.BOOL and tensor.data_location != TensorProto.EXTERNAL:
            array = numpy_helper.to_array(tensor)
            if array.size == 1:
                yield name, bool(array.item())


def _decided(node: Any, known: dict[str, bool]) -> bool:
    return node.op_type == "If" and len(node.input) == 1 and node.input[0] in known


def _inline(graph: Any, known: dict[str, bool]) -> None:
    taken = {tensor.name for tensor in (*graph.initializer, *graph.input)}
    taken.update(name for node in graph.node for name in node.output)
    nodes: list[Any] = []
    for node in graph.node:
        if not _decided(node, known):
            nodes.append(node)
            continue
        wanted = "then_branch" if known[node.input[0]] else "else_branch"
        branch = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
        nodes += _moved(branch, list(node.output), taken, graph)
    kept = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _moved(branch: Any, outputs: list[str], taken: set[str], graph: Any) -> list[Any]:
    """A branch's nodes under free names, its weights moved to the graph, its results under the `If`'s names."""
    from onnx import helper

    inner = [name for node in branch.node for name in node.output if name]
    inner += [tensor.name for tensor in branch.initializer]
    new = {name: _free(name, taken) for name in inner}
    for tensor in branch.initializer:
        moved = _copy(tensor)
        moved.name = new[tensor.name]
        graph.initializer.append(moved)
    nodes = [_copy(node) for node in branch.node]
    for node in nodes:
        _rename(node, new)
    results = [
        helper.make_node("Identity", [new.get(v.name, v.name)], [o])
        for v, o in zip(branch.output, outputs, strict=True)
    ]
    return nodes + results


def _rename(node: Any, new: dict[str, str]) -> None:
    """Renames what a node takes and gives, also in the graphs inside of it, which see the names around them."""
    node.input[:] = [new.get(name, name) for name in node.input]
    node.output[:] = [new.get(name, name) for name in node.output]
    for attribute in node.attribute:
        for inside in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            for value in inside.output:
                value.name = new.get(value.name, value.name)
            for deeper in inside.node:
                _rename(deeper, new)


def _free(name: str, taken: set[str]) -> str:
    found, count = name, 0
    while found in taken:
        count += 1
        found = f"{name}/branch{count}"
    taken.add(found)
    return found


def _copy(message: Any) -> Any:
    made = type(message)()
    made.CopyFrom(message)
    return made
