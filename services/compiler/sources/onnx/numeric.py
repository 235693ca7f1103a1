"""ONNX operators that sum: products, convolutions, norms, reductions, poolings, and their 8-bit forms, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as f

from services.compiler.sources.onnx.elementwise import Attributes, Operator
from services.compiler.sources.onnx.values import Value, integers, same_kind, tensor
from tradewind.domain.errors import UnsupportedModel


def _matmul(_attributes: Attributes, a: Value, b: Value) -> torch.Tensor:
    left, right = same_kind(a, b)
    if right.dim() == 2 and left.dim() > 2:
        # With [B, T, D] IREE packs the weight once for each row of the batch; see export/attention.py.
        flat = torch.matmul(left.reshape(-1, left.shape[-1]), right)
        return flat.reshape(*left.shape[:-1], right.shape[-1])
    return torch.matmul(left, right)


def _gemm(attributes: Attributes, a: Value, b: Value, c: Value = None) -> torch.Tensor:
    left, right = same_kind(a, b)
    left = left.t() if attributes.get("transA") else left
    right = right.t() if attributes.get("transB") else right
    result: torch.Tensor = torch.matmul(left, right) * attributes.get("alpha", 1.0)
    if c is not None:
        result = result + tensor(c, result) * attributes.get("beta", 1.0)
    return result


def _padding(attributes: Attributes, source: torch.Tensor, kernel: list[int], filler: float) -> torch.Tensor:
    """The source with the padding of a convolution or pooling around its last dimensions."""
    spatial = len(kernel)
    strides = attributes.get("strides", [1] * spatial)
    dilations = attributes.get("dilations", [1] * spatial)
    pads, auto = list(attributes.get("pads", [0] * 2 * spatial)), attributes.get("auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        for i in range(spatial):
            size = source.shape[2 + i]
            need = max(0, (-(-size // strides[i]) - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - size)
            small, large = need // 2, need - need // 2
            pads[i], pads[i + spatial] = (small, large) if auto == b"SAME_UPPER" else (large, small)
    if not any(pads):
        return source
    amount = [pads[i + side * spatial] for i in reversed(range(spatial)) for side in (0, 1)]
    return f.pad(source, amount, value=filler)


def _conv(attributes: Attributes, x: Value, weight: Value, bias: Value = None) -> torch.Tensor:
    source, kernel = same_kind(x, weight)
    spatial = kernel.dim() - 2
    function: Any = {1: f.conv1d, 2: f.conv2d, 3: f.conv3d}[spatial]
    return function(  # type: ignore[no-any-return]
        _padding(attributes, source, list(kernel.shape[2:]), 0.0),
        kernel,
        None if bias is None else tensor(bias, source),
        stride=attributes.get("strides", [1] * spatial),
        dilation=attributes.get("dilations", [1] * spatial),
        groups=attributes.get("group", 1),
    )


def _max_pool(attributes: Attributes, x: Value) -> torch.Tensor:
    kernel = attributes["kernel_shape"]
    function: Any = {1: f.max_pool1d, 2: f.max_pool2d, 3: f.max_pool3d}[len(kernel)]
    padded = _padding(attributes, tensor(x), kernel, float("-inf"))
    return function(  # type: ignore[no-any-return]
        padded,
        kernel,
        stride=attributes.get("strides", [1] * len(kernel)),
        dilation=attributes.get("dilations", [1] * len(kernel)),
        ceil_mode=bool(attributes.get("ceil_mode")),
    )


def _average_pool(attributes: Attributes, x: Value) -> torch.Tensor:
    kernel, source = attributes["kernel_shape"], tensor(x)
    function: Any = {1: f.avg_pool1d, 2: f.avg_pool2d, 3: f.avg_pool3d}[len(kernel)]
    strides = attributes.get("strides", [1] * len(kernel))
    mean = function(_padding(attributes, source, kernel, 0.0), kernel, strides)
    if attributes.get("count_include_pad"):
        return mean  # type: ignore[no-any-return]
    share = function(_padding(attributes, torch.ones_like(source), kernel, 0.0), kernel, strides)
    return mean / share  # type: ignore[no-any-return]


def _global_pool(function: Callable[..., torch.Tensor]) -> Operator:
    return lambda _attributes, x: function(tensor(x), dim=tuple(range(2, tensor(x).dim())), keepdim=True)


def _batch_norm(attributes: Attributes, x: Value, scale: Value, bias: Value, mean: Value, variance: Value) -> Any:
    source = tensor(x)
    centre, spread, factor, shift = (tensor(v, source) for v in (mean, variance, scale, bias))
    return f.batch_norm(source, centre, spread, factor, shift, False, eps=attributes.get("epsilon", 1e-5))


def _layer_norm(attributes: Attributes, x: Value, scale: Value, bias: Value = None) -> torch.Tensor:
    source = tensor(x)
    axis = attributes.get("axis", -1) % source.dim()
    shift = None if bias is None else tensor(bias, source)
    return f.layer_norm(source, source.shape[axis:], tensor(scale, source), shift, attributes.get("epsilon", 1e-5))


def _rms_norm(attributes: Attributes, x: Value, scale: Value) -> torch.Tensor:
    source = tensor(x)
    axis = attributes.get("axis", -1) % source.dim()
    mean = source.float().pow(2).mean(tuple(range(axis, source.dim())), keepdim=True)
    return (source.float() * torch.rsqrt(mean + attributes.get("epsilon", 1e-5))).to(source.dtype) * tensor(
        scale, source
    )


def _instance_norm(attributes: Attributes, x: Value, scale: Value, bias: Value) -> torch.Tensor:
    source = tensor(x)
    return f.instance_norm(
        source, weight=tensor(scale, source), bias=tensor(bias, source), eps=attributes.get("epsilon", 1e-5)
    )


def _reduce(function: Callable[..., Any]) -> Operator:
    def run(attributes: Attributes, x: Value, axes: Value = None) -> torch.Tensor:
        source = tensor(x)
        along = integers(axes, "the axes of a reduction") if axes is not None else attributes.get("axes")
        if not along:
            if attributes.get("noop_with_empty_axes"):
                return source
            along = list(range(source.dim()))
        return function(source, tuple(along), bool(attributes.get("keepdims", 1)))  # type: ignore[no-any-return]

    return run


def _product(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = torch.prod(x, axis, keep)
    return x


def _sum(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return torch.sum(x, axes, keep).to(x.dtype)


def _arg(function: Callable[..., torch.Tensor]) -> Operator:
    return lambda a, x: function(tensor(x), a.get("axis", 0), bool(a.get("keepdims", 1)))


def _softmax(function: Callable[..., torch.Tensor]) -> Operator:
    def run(attributes: Attributes, x: Value) -> torch.Tensor:
        if attributes["opset"] < 13 and attributes.get("axis", 1) not in (-1, tensor(x).dim() - 1):
            raise UnsupportedModel("Softmax over several axes (operator set below 13) is not supported; export it anew")
        return function(tensor(x), attributes.get("axis", -1))

    return run


def _einsum(attributes: Attributes, *xs: Value) -> torch.Tensor:
    first = next((x for x in xs if isinstance(x, torch.Tensor)), None)
    return torch.einsum(attributes["equation"].decode(), *(tensor(x, first) for x in xs))


def _top_k(attributes: Attributes, x: Value, k: Value) -> Any:
    count = integers(k, "the k of a TopK")[0]
    found = torch.topk(tensor(x), count, attributes.get("axis", -1), bool(attributes.get("largest", 1)))
    return found.values, found.indices


def _along(value: Value, source: torch.Tensor, axis: int) -> torch.Tensor:
    """A scale or zero point, one for all or one for each index of an axis, in a form that broadcasts."""
    made = tensor(value).to(torch.float32)
    if made.numel() == 1:
        return made.reshape(())
    return made.reshape([-1 if i == axis % source.dim() else 1 for i in range(source.dim())])


def _dequantize(attributes: Attributes, x: Value, scale: Value, zero: Value = None) -> torch.Tensor:
    source, axis = tensor(x), attributes.get("axis", 1)
    shifted = source.to(torch.float32) - (0.0 if zero is None else _along(zero, source, axis))
    return (shifted * _along(scale, source, axis)).to(attributes["float_type"])


def _quantize(attributes: Attributes, x: Value, scale: Value, zero: Value = None) -> torch.Tensor:
    source, axis = tensor(x), attributes.get("axis", 1)
    kind = torch.uint8 if zero is None else tensor(zero).dtype
    offset = 0.0 if zero is None else _along(zero, source, axis)
    limits = torch.iinfo(kind)
    return torch.clamp(torch.round(source / _along(scale, source, axis)) + offset, limits.min, limits.max).to(kind)


def _dynamic_quantize(_attributes: Attributes, x: Value) -> Any:
    source = tensor(x)
    low, high = torch.clamp(source.amin(), max=0.0), torch.clamp(source.amax(), min=0.0)
    scale = (high - low) / 255.0
    zero = torch.clamp(torch.round(-low / scale), 0, 255)
    return torch.clamp(torch.round(source / scale) + zero, 0, 255).to(torch.uint8), scale, zero.to(torch.uint8)


def _matmul_integer(_attributes: Attributes, a: Value, b: Value, a_zero: Value = None, b_zero: Value = None) -> Any:
    """Sums of 8-bit products in f32: exact up to 2^24, about 260 of the largest ones; beyond, rounded like f32."""
    left, right = tensor(a).to(torch.float32), tensor(b).to(torch.float32)
    left = left if a_zero is None else left - tensor(a_zero).to(torch.float32)
    right = right if b_zero is None else right - tensor(b_zero).to(torch.float32)
    return _matmul({}, left, right).to(torch.int32)


def _quantised(function: Operator) -> Operator:
    """A form of two 8-bit operands with scales and zero points, and an 8-bit result: as the standard defines it."""

    def run(
        attributes: Attributes,
        a: Value,
        a_scale: Value,
        a_zero: Value,
        b: Value,
        b_scale: Value,
        b_zero: Value,
        scale: Value,
        zero: Value,
        bias: Value = None,
    ) -> torch.Tensor:
        # Scales of a convolution's filters lie along its first axis, those of a matrix along its last.
        along = {**attributes, "axis": 0 if function is _conv else -1, "float_type": torch.float32}
        left = _dequantize({**along, "axis": -2}, a, a_scale, a_zero)
        right = _dequantize(along, b, b_scale, b_zero)
        product = function(attributes, left, right)
        if bias is not None:
            step = tensor(a_scale).to(torch.float32) * tensor(b_scale).to(torch.float32)
            added = tensor(bias).to(torch.float32) * step
            product = product + added.reshape([1, -1, *[1] * (product.dim() - 2)])
        return _quantize({**attributes, "axis": -1}, product, scale, zero)

    return run


NUMERIC: Final[dict[str, Operator]] = {
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool(torch.mean),
    "GlobalMaxPool": _global_pool(torch.amax),
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax(torch.log_softmax),
    "MatMul": _matmul,
    "MatMulInteger": _matmul_integer,
    "MaxPool": _max_pool,
    "QLinearConv": _quantised(_conv),
    "QLinearMatMul": _quantised(_matmul),
    "QuantizeLinear": _quantize,
    "RMSNormalization": _rms_norm,
    "ReduceL1": _reduce(lambda x, axes, keep: torch.sum(torch.abs(x), axes, keep)),
    "ReduceL2": _reduce(lambda x, axes, keep: torch.sqrt(torch.sum(x * x, axes, keep))),
    "ReduceLogSumExp": _reduce(torch.logsumexp),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceProd": _reduce(_product),
    "ReduceSum": _reduce(_sum),
    "ReduceSumSquare": _reduce(lambda x, axes, keep: torch.sum(x * x, axes, keep)),
    "Softmax": _softmax(torch.softmax),
    "TopK": _top_k,
}
