"""Puts kernels in the place of their torch operators in an exported module. Changes the module; runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from iree.compiler import ir

from services.compiler.kernels.attention import Attention, attention_kernel
from services.compiler.kernels.formats import BLOCK, FORMATS, GROUP, W4, W8, Format
from services.compiler.kernels.linear import Linear, linear_kernels
from services.compiler.kernels.rotary_cache import RotaryCache, rotary_cache_kernel
from services.compiler.kernels.rows import GATED, NORMED, PLAIN, ROUNDED, Rows

# Function name and text of the kernel for an operation.
Made = tuple[str, str]
_TORCH: Final = "torch.operator"
_FLOAT: Final = "torch.constant.float"
_BOOL: Final = "torch.constant.bool"


@dataclass(frozen=True, slots=True)
class _Operands:
    """What a kernel depends on: shapes of tensors in order, None for one left out, and constants."""

    shapes: tuple[list[int] | None, ...]
    numbers: tuple[float, ...]
    flags: tuple[bool, ...]


def lower_kernels(module: Any) -> int:
    """Replaces every operator of `operators`; how many kernels the module has now."""
    found: list[Any] = []

    def look(operation: Any) -> Any:
        if operation.name == _TORCH and ir.StringAttr(operation.attributes["name"]).value in _KERNELS:
            found.append(operation)
        return ir.WalkResult.ADVANCE

    with module.context, ir.Location.unknown():
        module.walk(look)
        known: set[str] = set()
        for operation in found:
            _lower(module, operation, known)
    return len(known)


def _lower(module: Any, operation: Any, known: set[str]) -> None:
    tensors = [value for value in operation.operands if "vtensor" in str(value.type)]
    natives = [_native(value.type) for value in tensors]
    name, text = _KERNELS[ir.StringAttr(operation.attributes["name"]).value](_operands(operation))
    if name not in known:
        known.add(name)
        _append(module, text)
    place = ir.InsertionPoint(operation)
    arguments = [
        ir.Operation.create("torch_c.to_builtin_tensor", results=[kind], operands=[value], ip=place).result
        for value, kind in zip(tensors, natives, strict=True)
    ]
    callee = {"callee": ir.FlatSymbolRefAttr.get(name)}
    call = ir.Operation.create(
        "util.call",
        results=[_native(result.type) for result in operation.results],
        operands=arguments,
        attributes=callee,
        ip=place,
    )
    for result, made in zip(operation.results, call.results, strict=True):
        back = ir.Operation.create("torch_c.from_builtin_tensor", results=[result.type], operands=[made], ip=place)
        result.replace_all_uses_with(back.result)
    operation.erase()


def _operands(operation: Any) -> _Operands:
    def constants(kind: str, attribute: Any) -> Iterator[Any]:
        for value in operation.operands:
            if getattr(value.owner, "name", "") == kind:
                yield attribute(value.owner.attributes["value"]).value

    shapes = tuple(
        list(_native(value.type).shape) if "vtensor" in str(value.type) else None
        for value in operation.operands
        if "vtensor" in str(value.type) or "none" in str(value.type)
    )
    flags = tuple(bool(flag) for flag in constants(_BOOL, ir.IntegerAttr))
    return _Operands(shapes, tuple(constants(_FLOAT, ir.FloatAttr)), flags)


def _append(module: Any, text: str) -> None:
    """Adds functions to the module, those it has already left out."""
    body = module.regions[0].blocks[0]
    names = {
        ir.StringAttr(operation.attributes["sym_name"]).value
        for operation in body.operations
        if "sym_name" in operation.attributes
    }
    # Held to the end: operations that leave a module must not outlive it before they have another.
    source = ir.Module.parse(f"module {{\n{text}\n}}")
    for function in list(source.body.operations):
        if ir.StringAttr(function.attributes["sym_name"]).value not in names:
            function.operation.detach_from_parent()
            body.append(function)


def _native(kind: Any) -> Any:
    """!torch.vtensor<[1,576],f32> → tensor<1x576xf32>."""
    shape, element = str(kind).removeprefix("!torch.vtensor<[").removesuffix(">").split("],")
    sizes = "x".join(shape.split(","))
    return ir.RankedTensorType(ir.Type.parse(f"tensor<{sizes}x{element.removeprefix('s')}>"))


def _linear(operands: _Operands) -> Made:
    rows, weights, _, gain, added = operands.shapes
    assert rows is not None
    assert weights is not None
    (gated,), (epsilon,) = operands.flags, operands.numbers
    made = NORMED if gain is not None else GATED if gated else PLAIN
    read = Rows(rows[0], weights[1] * GROUP, made, epsilon)
    shape = Linear(_form(weights), read, weights[0] * BLOCK, added is not None)
    return shape.name, linear_kernels(shape)


def _rounded_linear(operands: _Operands) -> Made:
    numbers, _, _, weights, _, added = operands.shapes
    assert numbers is not None
    assert weights is not None
    shape = Linear(_form(weights), Rows(numbers[0], numbers[1], ROUNDED), weights[0] * BLOCK, added is not None)
    return shape.name, linear_kernels(shape)


def _gated_linear(operands: _Operands) -> Made:
    rows, weights, _, gain = operands.shapes
    assert rows is not None
    assert weights is not None
    (wide,), (epsilon,) = operands.flags, operands.numbers
    read = Rows(rows[0], rows[1], PLAIN if gain is None else NORMED, epsilon)
    shape = Linear(_form(weights), read, weights[0] * BLOCK, gated=_rounding(wide))
    return shape.name, linear_kernels(shape)


def _form(weights: list[int]) -> Format:
    return next(form for form in FORMATS.values() if form.group_bytes == weights[2])


def _rounding(wide: bool) -> Format:
    """The format whose activations are rounded like that."""
    return W8 if wide else W4


def _attention(operands: _Operands) -> Made:
    (follows,) = operands.flags
    shape = _attention_shape(operands, follows, None)
    return shape.name, attention_kernel(shape)


def _attention_rounded(operands: _Operands) -> Made:
    (wide,) = operands.flags
    shape = _attention_shape(operands, False, _rounding(wide))
    return shape.name, attention_kernel(shape)


def _attention_shape(operands: _Operands, follows: bool, rounded: Format | None) -> Attention:
    queries, cache, *_rest = operands.shapes
    assert queries is not None
    assert cache is not None
    (tokens, heads, width), (slots, kv_heads, rows, _) = queries, cache
    return Attention(tokens, heads, width, slots, rows, kv_heads, operands.numbers[0], follows, rounded)


def _rotary_cache(operands: _Operands) -> Made:
    rows, cache = operands.shapes[0], operands.shapes[5]
    assert rows is not None
    assert cache is not None
    slots, kv_heads, cached, width = cache
    shape = RotaryCache(rows[0], rows[1] // width - 2 * kv_heads, width, slots, kv_heads, cached)
    return shape.name, rotary_cache_kernel(shape)


_KERNELS: Final[dict[str, Callable[[_Operands], Made]]] = {
    "torch.tradewind.packed_linear": _linear,
    "torch.tradewind.rounded_linear": _rounded_linear,
    "torch.tradewind.gated_linear": _gated_linear,
    "torch.tradewind.attend": _attention,
    "torch.tradewind.attend_rounded": _attention_rounded,
    "torch.tradewind.rotary_cache": _rotary_cache,
}
