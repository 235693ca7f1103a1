"""Values between the nodes of a graph: tensors that depend on the inputs, and arrays that are known already.

Shapes, axes and masks built from shapes are known while a graph is traced for fixed sizes. Keeping them out of PyTorch
as NumPy arrays folds them away; what remains is what must be computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tradewind.domain.errors import UnsupportedModel

Known = npt.NDArray[Any]
Value = torch.Tensor | Known | None


def integers(value: Value, what: str) -> list[int]:
    """The numbers of a value that has to be known.

    Raises:
        UnsupportedModel: it depends on the inputs' content.
    """
    if isinstance(value, torch.Tensor):
        raise UnsupportedModel(f"{what} depends on the data, which one fixed graph cannot have")
    return [int(v) for v in np.atleast_1d(np.asarray(value)).tolist()]


def tensor(value: Value, like: torch.Tensor | None = None) -> torch.Tensor:
    """A value as a tensor; known floats take the type of `like`, so that narrow arithmetic stays narrow."""
    if isinstance(value, torch.Tensor):
        return value
    if value is None:
        raise UnsupportedModel("an input that the operator needs is missing")
    made = torch.from_numpy(np.array(value))
    if like is not None and like.is_floating_point() and made.is_floating_point():
        made = made.to(like.dtype)
    return made


def same_kind(left: Value, right: Value) -> tuple[torch.Tensor, torch.Tensor]:
    """Two operands as tensors of one type."""
    one = tensor(left, right if isinstance(right, torch.Tensor) else None)
    return one, tensor(right, one)
