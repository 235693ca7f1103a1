"""ONNX operators that work element by element, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as f

from services.compiler.sources.onnx.values import Value, same_kind, tensor

Attributes = dict[str, Any]
Operator = Callable[..., Any]

_CASTS: Final = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    return lambda _attributes, x: function(tensor(x))


def _binary(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    return lambda _attributes, a, b: function(*same_kind(a, b))


def _fold(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    def run(_attributes: Attributes, first: Value, *others: Value) -> torch.Tensor:
        result = tensor(first)
        for other in others:
            result = function(*same_kind(result, other))
        return result

    return run


def _divide(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _mod(attributes: Attributes, a: Value, b: Value) -> torch.Tensor:
    one, other = same_kind(a, b)
    return torch.fmod(one, other) if attributes.get("fmod") else torch.remainder(one, other)


def _power(_attributes: Attributes, base: Value, exponent: Value) -> torch.Tensor:
    x = tensor(base, exponent if isinstance(exponent, torch.Tensor) else None)
    if isinstance(exponent, np.ndarray) and exponent.size == 1:
        return torch.pow(x, float(np.asarray(exponent).item())).to(x.dtype)
    return torch.pow(x, tensor(exponent, x)).to(x.dtype)


def _clip(attributes: Attributes, x: Value, low: Value = None, high: Value = None) -> torch.Tensor:
    bounded = tensor(x)
    for bound, limit in ((low, torch.maximum), (high, torch.minimum)):
        if bound is not None:
            bounded = limit(*same_kind(bounded, bound))
    low_attribute, high_attribute = attributes.get("min"), attributes.get("max")
    if low_attribute is not None or high_attribute is not None:
        bounded = torch.clamp(bounded, low_attribute, high_attribute)
    return bounded


def _cast(attributes: Attributes, x: Value) -> torch.Tensor:
    wanted = _CASTS[attributes["to"]]
    # A graph that is run in a narrow type casts to that one where its source casts to f32.
    wanted = attributes["float_type"] if wanted is torch.float32 else wanted
    return tensor(x).to(wanted)


def _where(_attributes: Attributes, condition: Value, a: Value, b: Value) -> torch.Tensor:
    return torch.where(tensor(condition), *same_kind(a, b))


def _gelu(attributes: Attributes, x: Value) -> torch.Tensor:
    return f.gelu(tensor(x), approximate=attributes.get("approximate", b"none").decode())


def _hard_sigmoid(attributes: Attributes, x: Value) -> torch.Tensor:
    return torch.clamp(tensor(x) * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5), 0, 1)


def _prelu(_attributes: Attributes, x: Value, slope: Value) -> torch.Tensor:
    value, factor = same_kind(x, slope)
    return torch.where(value < 0, value * factor, value)


ELEMENTWISE: Final[dict[str, Operator]] = {
    "Abs": _unary(torch.abs),
    "Acos": _unary(torch.acos),
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "Asin": _unary(torch.asin),
    "Atan": _unary(torch.atan),
    "Cast": _cast,
    "Ceil": _unary(torch.ceil),
    "Celu": lambda a, x: f.celu(tensor(x), a.get("alpha", 1.0)),
    "Clip": _clip,
    "Cos": _unary(torch.cos),
    "Div": _binary(_divide),
    "Dropout": lambda _a, x, *_others: tensor(x),
    "Elu": lambda a, x: f.elu(tensor(x), a.get("alpha", 1.0)),
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gelu": _gelu,
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(f.hardswish),
    "Identity": lambda _a, x: x,
    "IsInf": _unary(torch.isinf),
    "IsNaN": _unary(torch.isnan),
    "LeakyRelu": lambda a, x: f.leaky_relu(tensor(x), a.get("alpha", 0.01)),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "Max": _fold(torch.maximum),
    "Mean": lambda a, *xs: _fold(torch.add)(a, *xs) / len(xs),
    "Min": _fold(torch.minimum),
    "Mish": _unary(f.mish),
    "Mod": _mod,
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _binary(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _power,
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(torch.relu),
    "Round": _unary(torch.round),
    "Selu": _unary(torch.selu),
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Softplus": _unary(f.softplus),
    "Softsign": _unary(f.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _binary(torch.sub),
    "Sum": _fold(torch.add),
    "Tan": _unary(torch.tan),
    "Tanh": _unary(torch.tanh),
    "Where": _where,
    "Xor": _binary(torch.logical_xor),
}
