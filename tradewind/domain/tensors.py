"""Tensors by name, type and sizes, as models take and give them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Sizes that are not fixed: how many samples a call takes, and how long each is.
BATCH: Final = "batch"
LENGTH: Final = "length"

# Element types that cross the wire, with their size in bytes and their name in the Open Inference Protocol.
SIZES: Final[dict[str, int]] = {
    "bool": 1, "i8": 1, "u8": 1, "i16": 2, "u16": 2, "i32": 4, "u32": 4, "i64": 8, "u64": 8,
    "f16": 2, "bf16": 2, "f32": 4, "f64": 8,
}  # fmt: skip
OPEN_INFERENCE: Final[dict[str, str]] = {
    "bool": "BOOL", "i8": "INT8", "u8": "UINT8", "i16": "INT16", "u16": "UINT16", "i32": "INT32", "u32": "UINT32",
    "i64": "INT64", "u64": "UINT64", "f16": "FP16", "bf16": "BF16", "f32": "FP32", "f64": "FP64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor that a model takes or gives.

    Attributes:
        name: as the source named it.
        dtype: element type, a key of `SIZES`.
        shape: sizes; BATCH (first only) and LENGTH stand for those that calls choose.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def sized(self, batch: int, length: int) -> tuple[int, ...]:
        """Its sizes in a call of so many samples of such a length."""
        return tuple({BATCH: batch, LENGTH: length}[s] if isinstance(s, str) else s for s in self.shape)

    @property
    def open_shape(self) -> tuple[int, ...]:
        """Its sizes with -1 for what calls choose."""
        return tuple(-1 if isinstance(size, str) else size for size in self.shape)


def tensor_spec(raw: dict[str, object]) -> TensorSpec:
    """A spec out of JSON.

    Raises:
        TypeError, KeyError: it is something else.
    """
    shape = raw["shape"]
    if not isinstance(shape, list | tuple):
        raise TypeError(f"shape {shape!r} is no list")
    return TensorSpec(str(raw["name"]), str(raw["dtype"]), tuple(s if isinstance(s, str) else int(s) for s in shape))
