"""ONNX operators that move, pick and arrange elements, in PyTorch."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch

from services.compiler.sources.onnx.elementwise import Attributes, Operator
from services.compiler.sources.onnx.values import Value, integers, same_kind, tensor
from tradewind.domain.errors import UnsupportedModel


def _axes(attributes: Attributes, given: Value, key: str = "axes") -> list[int] | None:
    """Axes from an input (newer operator sets) or from an attribute (older ones)."""
    return integers(given, key) if given is not None else attributes.get(key)


def _reshape(attributes: Attributes, x: Value, shape: Value) -> torch.Tensor:
    source = tensor(x)
    sizes = integers(shape, "the shape of a Reshape")
    if not attributes.get("allowzero"):
        sizes = [source.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return source.reshape(sizes)


def _squeeze(attributes: Attributes, x: Value, axes: Value = None) -> torch.Tensor:
    source, wanted = tensor(x), _axes(attributes, axes)
    if wanted is None:
        return source.squeeze()
    dropped = {axis % source.dim() for axis in wanted}
    return source.reshape([size for i, size in enumerate(source.shape) if i not in dropped])


def _unsqueeze(attributes: Attributes, x: Value, axes: Value = None) -> torch.Tensor:
    source, wanted = tensor(x), _axes(attributes, axes) or []
    rank = source.dim() + len(wanted)
    for axis in sorted(axis % rank for axis in wanted):
        source = source.unsqueeze(axis)
    return source


def _transpose(attributes: Attributes, x: Value) -> torch.Tensor:
    source = tensor(x)
    return source.permute(attributes.get("perm") or list(reversed(range(source.dim()))))


def _concat(attributes: Attributes, *xs: Value) -> torch.Tensor:
    first = next((x for x in xs if isinstance(x, torch.Tensor)), None)
    return torch.cat([tensor(x, first) for x in xs], attributes["axis"])


def _split(attributes: Attributes, x: Value, sizes: Value = None) -> tuple[torch.Tensor, ...]:
    source, axis = tensor(x), attributes.get("axis", 0)
    wanted = _axes(attributes, sizes, "split")
    if wanted is None:
        count = attributes.get("num_outputs") or attributes["outputs"]
        return torch.split(source, -(-source.shape[axis] // count), axis)
    return torch.split(source, wanted, axis)


def _slice(
    _attributes: Attributes, x: Value, starts: Value, ends: Value, axes: Value = None, steps: Value = None
) -> torch.Tensor:
    source = tensor(x)
    begin, end = integers(starts, "the start of a Slice"), integers(ends, "the end of a Slice")
    along = integers(axes, "the axis of a Slice") if axes is not None else list(range(len(begin)))
    stride = integers(steps, "the step of a Slice") if steps is not None else [1] * len(begin)
    for first, last, axis, step in zip(begin, end, along, stride, strict=True):
        picked = range(source.shape[axis])[first:last:step] if step > 0 else _backwards(source, axis, first, last, step)
        if step > 0:
            source = (
                source.narrow(axis, picked.start, len(range(picked.start, picked.stop)))
                if step == 1
                else (source.index_select(axis, torch.tensor(list(picked))))
            )
        else:
            source = source.index_select(axis, torch.tensor(list(picked)))
    return source


def _backwards(source: torch.Tensor, axis: int, first: int, last: int, step: int) -> range:
    size = source.shape[axis]
    first = min(first + size if first < 0 else first, size - 1)
    last = -1 if last < -size else (last + size if last < 0 else last)
    return range(first, last, step)


def _gather(attributes: Attributes, x: Value, indices: Value) -> torch.Tensor:
    source, axis = tensor(x), attributes.get("axis", 0)
    axis %= source.dim()
    if isinstance(indices, np.ndarray) and indices.ndim == 0:
        at = int(np.asarray(indices))
        return source.select(axis, at)
    index = tensor(indices).to(torch.int64)
    if not isinstance(indices, torch.Tensor):
        index = index % source.shape[axis]
    if axis == 0 and source.dim() == 2 and isinstance(indices, torch.Tensor):
        return torch.nn.functional.embedding(index, source)
    shape = (*source.shape[:axis], *index.shape, *source.shape[axis + 1 :])
    return source.index_select(axis, index.reshape(-1)).reshape(shape)


def _gather_elements(attributes: Attributes, x: Value, indices: Value) -> torch.Tensor:
    return torch.gather(tensor(x), attributes.get("axis", 0), tensor(indices).to(torch.int64))


def _gather_nd(attributes: Attributes, x: Value, indices: Value) -> torch.Tensor:
    source, index = tensor(x), tensor(indices).to(torch.int64)
    if attributes.get("batch_dims"):
        raise UnsupportedModel("GatherND with batch_dims is not supported")
    result: torch.Tensor = source[tuple(index.unbind(-1))]
    return result


def _scatter_nd(attributes: Attributes, x: Value, indices: Value, updates: Value) -> torch.Tensor:
    if attributes.get("reduction", b"none") not in (b"none", b""):
        raise UnsupportedModel("ScatterND with a reduction is not supported")
    source, new = same_kind(x, updates)
    index = tensor(indices).to(torch.int64)
    return source.clone().index_put(tuple(index.unbind(-1)), new)


def _expand(_attributes: Attributes, x: Value, shape: Value) -> torch.Tensor:
    source, sizes = tensor(x), integers(shape, "the shape of an Expand")
    rank = max(source.dim(), len(sizes))
    padded = (*([1] * (rank - source.dim())), *source.shape)
    wanted = [max(a, b) for a, b in zip(padded, [1] * (rank - len(sizes)) + sizes, strict=True)]
    return source.expand(wanted)


def _tile(_attributes: Attributes, x: Value, repeats: Value) -> torch.Tensor:
    return tensor(x).repeat(integers(repeats, "the repeats of a Tile"))


def _pad(attributes: Attributes, x: Value, pads: Value = None, value: Value = None, axes: Value = None) -> torch.Tensor:
    source = tensor(x)
    if attributes.get("mode", b"constant") != b"constant":
        raise UnsupportedModel(f"Pad of mode {attributes['mode'].decode()} is not supported")
    sizes = _axes(attributes, pads, "pads") or []
    along = integers(axes, "the axes of a Pad") if axes is not None else list(range(source.dim()))
    amount = [0] * (2 * source.dim())
    for i, axis in enumerate(along):
        at = 2 * (source.dim() - 1 - axis % source.dim())
        amount[at], amount[at + 1] = sizes[i], sizes[i + len(along)]
    filler = float(np.asarray(value).item()) if value is not None else attributes.get("value", 0.0)
    return torch.nn.functional.pad(source, amount, value=filler)


def _constant_of_shape(attributes: Attributes, shape: Value) -> torch.Tensor:
    value = attributes.get("value")
    filler = torch.zeros(1) if value is None else tensor(value)
    return filler.reshape(()).expand(integers(shape, "the shape of a ConstantOfShape")).clone()


def _range(_attributes: Attributes, start: Value, limit: Value, delta: Value) -> torch.Tensor:
    values = [integers(v, "the bounds of a Range")[0] for v in (start, limit, delta)]
    return torch.arange(*values)


def _trilu(attributes: Attributes, x: Value, k: Value = None) -> torch.Tensor:
    diagonal = integers(k, "the diagonal of a Trilu")[0] if k is not None else 0
    return (torch.triu if attributes.get("upper", 1) else torch.tril)(tensor(x), diagonal)


def _flatten(attributes: Attributes, x: Value) -> torch.Tensor:
    source, axis = tensor(x), attributes.get("axis", 1)
    rows = int(np.prod(source.shape[:axis])) if axis else 1
    return source.reshape(rows, -1)


def _one_hot(attributes: Attributes, indices: Value, depth: Value, values: Value) -> torch.Tensor:
    if attributes.get("axis", -1) != -1:
        raise UnsupportedModel("OneHot along an inner axis is not supported")
    count, pair = integers(depth, "the depth of a OneHot")[0], tensor(values)
    hot = tensor(indices).to(torch.int64)[..., None] == torch.arange(count)
    return torch.where(hot, pair[1], pair[0])


def _depth_to_space(attributes: Attributes, x: Value) -> torch.Tensor:
    source, block = tensor(x), attributes["blocksize"]
    if attributes.get("mode", b"DCR") == b"CRD":
        return torch.nn.functional.pixel_shuffle(source, block)
    b, c, h, w = source.shape
    split = source.reshape(b, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return split.reshape(b, c // block**2, h * block, w * block)


SHAPING: Final[dict[str, Operator]] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "CumSum": lambda _a, x, axis: torch.cumsum(tensor(x), integers(axis, "the axis of a CumSum")[0]).to(
        tensor(x).dtype
    ),
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}


def known_shape(attributes: Attributes, x: Any) -> Any:
    """Shape: sizes are known while a graph is traced."""
    sizes = [int(size) for size in x.shape]
    return np.asarray(sizes[attributes.get("start", 0) : attributes.get("end", len(sizes))], np.int64)
