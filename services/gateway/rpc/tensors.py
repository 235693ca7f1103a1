"""Tensors of the Open Inference Protocol: single values out of inputs and parameters, texts into outputs."""

from __future__ import annotations

import struct
from typing import Final

from tradewind.domain.errors import InvalidField
from tradewind.open_inference import open_inference_pb2

Value = bytes | int | float | bool | str

# datatype → (struct code, field of InferTensorContents)
_TYPES: Final = {
    "BOOL": ("?", "bool_contents"),
    "INT8": ("b", "int_contents"),
    "INT16": ("h", "int_contents"),
    "INT32": ("i", "int_contents"),
    "INT64": ("q", "int64_contents"),
    "UINT8": ("B", "uint_contents"),
    "UINT16": ("H", "uint_contents"),
    "UINT32": ("I", "uint_contents"),
    "UINT64": ("Q", "uint64_contents"),
    "FP32": ("f", "fp32_contents"),
    "FP64": ("d", "fp64_contents"),
    "BYTES": ("", "bytes_contents"),
}
_LENGTH: Final = struct.Struct("<I")


def input_values(request: open_inference_pb2.ModelInferRequest) -> dict[str, Value]:
    """The one value of each input, by name.

    Raises:
        InvalidField: an input holds more or less than one value, has an unknown type, or its bytes do not fit.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidField("raw_input_contents", f"{len(raw)} contents for {len(request.inputs)} inputs; give one each")
    values: dict[str, Value] = {}
    for index, tensor in enumerate(request.inputs):
        if tensor.name in values:
            raise InvalidField("inputs", f"{tensor.name!r} is there twice")
        if tensor.datatype not in _TYPES:
            raise InvalidField("inputs", f"{tensor.name!r} has datatype {tensor.datatype!r}; use {', '.join(_TYPES)}")
        if any(size != 1 for size in tensor.shape):
            raise InvalidField(
                "inputs", f"{tensor.name!r} has shape {list(tensor.shape)}; one value is taken, shape [1]"
            )
        values[tensor.name] = _from_raw(tensor, raw[index]) if raw else _from_contents(tensor)
    return values


def parameter_value(parameter: open_inference_pb2.InferParameter) -> Value | None:
    """The value of a parameter; None when it has none."""
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)


def parameter(value: str | int | float) -> open_inference_pb2.InferParameter:
    """A parameter with this value."""
    if isinstance(value, str):
        return open_inference_pb2.InferParameter(string_param=value)
    if isinstance(value, int):
        return open_inference_pb2.InferParameter(int64_param=value)
    return open_inference_pb2.InferParameter(double_param=value)


def add_text(response: open_inference_pb2.ModelInferResponse, name: str, text: str, *, raw: bool) -> None:
    """Adds an output of one text, raw or typed as the request's inputs came."""
    output = response.outputs.add(name=name, datatype="BYTES", shape=[1])
    content = text.encode("utf-8", "replace")
    if raw:
        response.raw_output_contents.append(_LENGTH.pack(len(content)) + content)
    else:
        output.contents.bytes_contents.append(content)


def _from_contents(tensor: open_inference_pb2.ModelInferRequest.InferInputTensor) -> Value:
    contents = getattr(tensor.contents, _TYPES[tensor.datatype][1])
    if len(contents) != 1:
        raise InvalidField("inputs", f"{tensor.name!r} has {len(contents)} values of {tensor.datatype}; one is taken")
    return contents[0]  # type: ignore[no-any-return]


def _from_raw(tensor: open_inference_pb2.ModelInferRequest.InferInputTensor, content: bytes) -> Value:
    if tensor.datatype == "BYTES":
        if len(content) < _LENGTH.size or len(content) != _LENGTH.size + _LENGTH.unpack_from(content)[0]:
            raise InvalidField("raw_input_contents", f"{tensor.name!r} is not one text after its four-byte length")
        return content[_LENGTH.size :]
    layout = struct.Struct("<" + _TYPES[tensor.datatype][0])
    if len(content) != layout.size:
        raise InvalidField(
            "raw_input_contents", f"{tensor.name!r} has {len(content)} bytes; one {tensor.datatype} has {layout.size}"
        )
    return layout.unpack(content)[0]  # type: ignore[no-any-return]
