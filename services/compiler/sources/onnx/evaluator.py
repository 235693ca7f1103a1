"""ONNX's reference evaluator: the standard's own meaning of each operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tradewind.domain.errors import UnsupportedModel

Array = npt.NDArray[Any]
# First version of the operator that onnx's evaluator has.
_DEQUANTIZE_LINEAR: Final = 19


class Evaluator:
    """Runs a model on arrays by name."""

    def __init__(self, model: Any) -> None:
        """Over onnx.ModelProto.

        Raises:
            UnsupportedModel: an operator that the evaluator has in no version that fits.
        """
        from onnx.reference import ReferenceEvaluator

        try:
            self._evaluator: Any = ReferenceEvaluator(model, new_ops=_missing_operators(model))
        except (RuntimeError, NotImplementedError) as error:
            raise _not_evaluated(error) from error

    def run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """The model's outputs by name.

        Raises:
            UnsupportedModel: an operator refuses what it is given.
        """
        try:
            found = self._evaluator.run(None, dict(given))
        except (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError) as error:
            raise _not_evaluated(error) from error
        return {name: np.asarray(value) for name, value in zip(self._evaluator.output_names, found, strict=True)}


def _missing_operators(model: Any) -> list[type]:
    """onnx 1.23 evaluates `DequantizeLinear` from version 19 on only; older ones mean the same, for f32 scales."""
    from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_19

    if max((item.version for item in model.opset_import if item.domain == ""), default=0) >= _DEQUANTIZE_LINEAR:
        return []

    def run(self: Any, x: Array, scale: Array, zero: Array | None = None, axis: int | None = None, **_: Any) -> Any:
        return DequantizeLinear_19._run(self, x, scale, zero, 1 if axis is None else axis)

    return [type("DequantizeLinear", (DequantizeLinear_19,), {"op_domain": "", "_run": run})]


def _not_evaluated(error: Exception) -> UnsupportedModel:
    first = " ".join(str(error).strip().splitlines()[:1])[:300]
    return UnsupportedModel(f"ONNX's reference evaluator cannot run this graph ({first}); export it anew")
