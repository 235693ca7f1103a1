"""Whole tensors between the Open Inference Protocol and tradewind.v1: the same bytes under other names."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Any, Final

from tradewind.domain.errors import InvalidField
from tradewind.domain.tensors import OPEN_INFERENCE, SIZES
from tradewind.open_inference import open_inference_pb2 as oip
from tradewind.v1 import compiler_pb2, inference_pb2

_DTYPES: Final = {open_name: name for name, open_name in OPEN_INFERENCE.items()}
# dtype → (struct code, field of InferTensorContents); types that travel as raw bytes only are not here.
_CONTENTS: Final = {
    "bool": ("?", "bool_contents"), "i8": ("b", "int_contents"), "i16": ("h", "int_contents"),
    "i32": ("i", "int_contents"), "i64": ("q", "int64_contents"), "u8": ("B", "uint_contents"),
    "u16": ("H", "uint_contents"), "u32": ("I", "uint_contents"), "u64": ("Q", "uint64_contents"),
    "f32": ("f", "fp32_contents"), "f64": ("d", "fp64_contents"),
}  # fmt: skip


def tensors_of(request: oip.ModelInferRequest) -> list[inference_pb2.Tensor]:
    """The inputs of a request.

    Raises:
        InvalidField: an unknown type, or contents that do not fit the shape.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidField("raw_input_contents", f"{len(raw)} contents for {len(request.inputs)} inputs; give one each")
    return [_tensor(tensor, raw[at] if raw else None) for at, tensor in enumerate(request.inputs)]


def add_outputs(
    response: oip.ModelInferResponse, outputs: Iterable[inference_pb2.Tensor], wanted: frozenset[str], *, raw: bool
) -> None:
    """Adds outputs, raw or typed as the request's inputs came; all of them when none are wanted by name."""
    for tensor in outputs:
        if wanted and tensor.name not in wanted:
            continue
        added = response.outputs.add(name=tensor.name, datatype=OPEN_INFERENCE[tensor.dtype], shape=tensor.shape)
        if raw or tensor.dtype not in _CONTENTS:
            response.raw_output_contents.append(tensor.data)
            continue
        code, field = _CONTENTS[tensor.dtype]
        count = len(tensor.data) // SIZES[tensor.dtype]
        getattr(added.contents, field).extend(struct.unpack(f"<{count}{code}", tensor.data))


def metadata_of(specs: Iterable[compiler_pb2.TensorSpec]) -> list[oip.ModelMetadataResponse.TensorMetadata]:
    """What a model takes or gives, as the protocol says it."""
    return [
        oip.ModelMetadataResponse.TensorMetadata(
            name=spec.name, datatype=OPEN_INFERENCE.get(spec.dtype, spec.dtype.upper()), shape=spec.shape
        )
        for spec in specs
    ]


def _tensor(tensor: oip.ModelInferRequest.InferInputTensor, raw: bytes | None) -> inference_pb2.Tensor:
    dtype = _DTYPES.get(tensor.datatype)
    if dtype is None:
        raise InvalidField("inputs", f"{tensor.name!r} has datatype {tensor.datatype!r}; use {', '.join(_DTYPES)}")
    data = raw if raw is not None else _packed(tensor, dtype)
    return inference_pb2.Tensor(name=tensor.name, dtype=dtype, shape=tensor.shape, data=data)


def _packed(tensor: oip.ModelInferRequest.InferInputTensor, dtype: str) -> bytes:
    if dtype not in _CONTENTS:
        raise InvalidField("inputs", f"{tensor.name!r} of {tensor.datatype} travels in raw_input_contents only")
    code, field = _CONTENTS[dtype]
    values: Any = getattr(tensor.contents, field)
    if len(values) != math.prod(tensor.shape):
        raise InvalidField("inputs", f"{tensor.name!r} has {len(values)} values for shape {list(tensor.shape)}")
    try:
        return struct.pack(f"<{len(values)}{code}", *values)
    except struct.error as error:
        raise InvalidField("inputs", f"{tensor.name!r} holds a value outside of {tensor.datatype} ({error})") from error
