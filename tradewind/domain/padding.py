"""Samples of different lengths in one call of fixed sizes, and their answers out of it again. Pure; needs NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tradewind.domain.tensors import BATCH, LENGTH, TensorSpec

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a request asks for: samples, and their length along LENGTH dimensions (0 when there are none)."""

    rows: int
    length: int


def extent_of(inputs: Sequence[TensorSpec], given: Mapping[str, Array]) -> Extent:
    """The extent of a request whose tensors are all there.

    Raises:
        ValueError: a tensor's sizes fit neither its spec nor the others; says which and how.
    """
    seen: dict[str, int] = {}
    for spec in inputs:
        shape = given[spec.name].shape
        if len(shape) != len(spec.shape):
            raise ValueError(f"{spec.name} has shape {list(shape)}; it must have {len(spec.shape)} dimensions")
        for wanted, size in zip(spec.shape, shape, strict=True):
            expected = seen.setdefault(wanted, size) if isinstance(wanted, str) else wanted
            if size != expected or size < 1:
                wish = [s if isinstance(s, int) else seen.get(s, s) for s in spec.shape]
                raise ValueError(f"{spec.name} has shape {list(shape)}; it must have {wish}")
    return Extent(seen.get(BATCH, 1), seen.get(LENGTH, 0))


def stack(
    inputs: Sequence[TensorSpec], requests: Sequence[Mapping[str, Array]], batch: int, length: int
) -> list[Array]:
    """One array for each input of a call of `batch` samples of `length`: requests one below the other, zeros around."""
    return [_stacked(spec, [request[spec.name] for request in requests], batch, length) for spec in inputs]


def unstack(outputs: Sequence[TensorSpec], answers: Sequence[Array], extents: Sequence[Extent]) -> list[list[Array]]:
    """The answers to each request of a call: its own rows, at its own length."""
    found, start = [], 0
    for extent in extents:
        places = {BATCH: slice(start, start + extent.rows), LENGTH: slice(0, extent.length)}
        found.append(
            [
                np.ascontiguousarray(
                    answer[tuple(places[s] if isinstance(s, str) else slice(None) for s in spec.shape)]
                )
                for spec, answer in zip(outputs, answers, strict=True)
            ]
        )
        start += extent.rows
    return found


def _stacked(spec: TensorSpec, arrays: Sequence[Array], batch: int, length: int) -> Array:
    sizes = spec.sized(batch, length)
    if len(arrays) == 1 and arrays[0].shape == sizes:
        return np.ascontiguousarray(arrays[0])
    whole = np.zeros(sizes, arrays[0].dtype)
    start = 0
    for array in arrays:
        rows = array.shape[0] if array.ndim else 1
        inner = tuple(slice(0, size) for size in array.shape[1:])
        whole[(slice(start, start + rows), *inner)] = array
        start += rows
    return whole
