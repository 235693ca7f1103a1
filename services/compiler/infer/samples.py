"""Samples to ask a tensor model about: made from its signature alone, the same each time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tradewind.domain.tensors import LENGTH, TensorSpec

Array = npt.NDArray[Any]
Sample = dict[str, Array]

_SEED: Final = 20260311
# Integers mean nothing known: those below this are an index into whatever there is.
_INTEGERS: Final = 2
# Samples of a model; unequal lengths, so that padding is exercised.
_LENGTH_SHARES: Final = (1.0, 0.55, 0.8)
MASK_NAMES: Final = ("attention_mask", "input_mask", "mask")
_NUMPY: Final[dict[str, Any]] = {
    "bool": np.bool_, "i8": np.int8, "u8": np.uint8, "i16": np.int16, "u16": np.uint16, "i32": np.int32,
    "u32": np.uint32, "i64": np.int64, "u64": np.uint64, "f16": np.float16, "f32": np.float32, "f64": np.float64,
}  # fmt: skip
_DTYPES: Final = {np.dtype(kind): name for name, kind in _NUMPY.items()}


def numpy_type(dtype: str) -> Any:
    """NumPy's type of an element type; KeyError for one it does not have."""
    return _NUMPY[dtype]


def dtype_name(array: Array) -> str:
    """The element type of an array; KeyError for one that does not travel."""
    return _DTYPES[array.dtype]


def mask_of(inputs: Sequence[TensorSpec]) -> str:
    """Name of the input that says which part of a sample is padding; "" when there is none."""
    return next((s.name for s in inputs if s.name.split(":")[0] in MASK_NAMES and LENGTH in s.shape), "")


def make_samples(inputs: Sequence[TensorSpec], length: int, integers: Mapping[str, int]) -> list[Sample]:
    """Some samples, each a batch of one (or of exactly the fixed sizes).

    Args:
        inputs: of the model.
        length: of the longest sample along LENGTH dimensions.
        integers: by input, below which integers are drawn, for instance a vocabulary's size; 2 where nothing is known.
    """
    draw = np.random.default_rng(_SEED)
    mask = mask_of(inputs)
    lengths = [max(1, int(length * share)) if mask else length for share in _LENGTH_SHARES]
    return [
        {s.name: _draw(s, s.sized(1, size), draw, mask, integers.get(s.name, _INTEGERS)) for s in inputs}
        for size in lengths
    ]


def _draw(spec: TensorSpec, shape: tuple[int, ...], draw: np.random.Generator, mask: str, integers: int) -> Array:
    kind = numpy_type(spec.dtype)
    if spec.name == mask:
        return np.ones(shape, kind)
    if "token_type" in spec.name:
        return np.zeros(shape, kind)
    if spec.dtype == "bool":
        return draw.integers(0, 2, shape).astype(kind)
    if spec.dtype[0] in "iu":
        return draw.integers(0, max(1, min(integers, np.iinfo(kind).max)), shape).astype(kind)
    return draw.standard_normal(shape).astype(kind)
