"""Which functions a tensor model's module offers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tradewind.domain.infer_manifest import InferFunction
from tradewind.domain.tensors import BATCH, LENGTH, TensorSpec


@dataclass(frozen=True, slots=True)
class InferShapes:
    """Sizes of the functions of a module.

    Attributes:
        batches: samples a call takes, ascending; none for a model whose sizes are all fixed.
        lengths: of samples, ascending; none for a model without LENGTH dimensions.
        fixed: name of the one function of a model whose sizes are all fixed, as its source has it; else "".
    """

    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    fixed: str = ""

    @property
    def functions(self) -> tuple[InferFunction, ...]:
        """Every function of the module."""
        if not self.batches:
            return (InferFunction(self.fixed or "infer", 0, 0),)
        if not self.lengths:
            return tuple(InferFunction(f"infer_b{batch}", batch, 0) for batch in self.batches)
        return tuple(
            InferFunction(f"infer_b{batch}_l{length}", batch, length)
            for batch in self.batches
            for length in self.lengths
        )


def fit_shapes(
    inputs: Sequence[TensorSpec], batches: tuple[int, ...], lengths: tuple[int, ...], longest: int
) -> InferShapes:
    """The sizes of a recipe, cut to what a model's inputs leave open.

    Args:
        inputs: of the model.
        batches: that the recipe wants.
        lengths: that the recipe wants.
        longest: sample that the model takes; 0 when it does not say.
    """
    open_sizes = {size for spec in inputs for size in spec.shape if isinstance(size, str)}
    top = min(lengths[-1], longest) if longest else lengths[-1]
    fitting = (*(length for length in lengths if length < top), top)
    return InferShapes(batches if BATCH in open_sizes else (), fitting if LENGTH in open_sizes else ())
