"""Tensors on the wire: checked arrays out of messages, messages out of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from services.node_agent.replica.infer_model import NUMPY
from tradewind.domain.errors import InvalidField
from tradewind.domain.padding import Array, Extent, extent_of
from tradewind.domain.tensors import TensorSpec
from tradewind.v1 import inference_pb2


def arrays_of(
    messages: Iterable[inference_pb2.Tensor], inputs: Sequence[TensorSpec]
) -> tuple[dict[str, Array], Extent]:
    """The arrays of a request, one for each input, and how much it asks for.

    Raises:
        InvalidField: an input is missing, unknown, twice there, of another type, or its sizes or bytes do not fit.
    """
    specs = {spec.name: spec for spec in inputs}
    found: dict[str, Array] = {}
    for message in messages:
        spec = specs.get(message.name)
        if spec is None:
            raise InvalidField("inputs", f"{message.name!r} is not among {', '.join(specs)}")
        if message.name in found:
            raise InvalidField("inputs", f"{message.name!r} is there twice")
        found[message.name] = _array(message, spec)
    if missing := [name for name in specs if name not in found]:
        raise InvalidField("inputs", f"{', '.join(missing)} missing; give {', '.join(specs)}")
    try:
        return found, extent_of(inputs, found)
    except ValueError as error:
        raise InvalidField("inputs", str(error)) from error


def messages_of(arrays: Sequence[Array], outputs: Sequence[TensorSpec]) -> list[inference_pb2.Tensor]:
    """Messages of a call's outputs."""
    return [
        inference_pb2.Tensor(name=spec.name, dtype=spec.dtype, shape=array.shape, data=array.tobytes())
        for spec, array in zip(outputs, arrays, strict=True)
    ]


def _array(message: inference_pb2.Tensor, spec: TensorSpec) -> Array:
    if message.dtype != spec.dtype:
        raise InvalidField("inputs", f"{spec.name} has type {message.dtype!r}; it must be {spec.dtype}")
    kind: Any = np.dtype(NUMPY[spec.dtype]).newbyteorder("<")
    if any(size < 1 for size in message.shape):
        raise InvalidField("inputs", f"{spec.name} has shape {list(message.shape)}; every size must be at least 1")
    wanted = int(np.prod([int(size) for size in message.shape], dtype=object)) * kind.itemsize
    if len(message.data) != wanted:
        raise InvalidField(
            "inputs", f"{spec.name} of shape {list(message.shape)} has {len(message.data)} bytes; it must have {wanted}"
        )
    return np.frombuffer(message.data, kind).reshape(tuple(message.shape))
