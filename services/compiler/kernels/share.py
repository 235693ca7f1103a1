"""What a workgroup has of a product: sizes and types. Text only."""

from __future__ import annotations

from dataclasses import dataclass

from services.compiler.kernels.formats import BLOCK, Format
from services.compiler.kernels.text import Text


@dataclass(frozen=True, slots=True)
class Share:
    """A workgroup's part of a layer's outputs, over all inputs of all rows.

    Attributes:
        form: of the weights.
        rows: of activations.
        inputs: of the layer.
        blocks: of outputs.
        weights_type: of the tensor that its weights are read from.
        scales_type: of that with their scales.
        first: the block of these tensors that is its own first; "" when they hold nothing else.
        apart: blocks of these tensors from its first to the first of its second half; 0 when they follow each other.
    """

    form: Format
    rows: int
    inputs: int
    blocks: int
    weights_type: str
    scales_type: str
    first: str = ""
    apart: int = 0

    @property
    def out_type(self) -> str:
        """Of its result."""
        return f"tensor<{self.rows}x{self.blocks * BLOCK}xf32>"

    def block(self, text: Text, number: str) -> str:
        """Where one of its own blocks is found in the tensors, by an index."""
        if not self.first:
            return number
        half = self.blocks // 2
        later = text.value(f"arith.cmpi uge, {number}, {text.index(half)} : index")
        jump = text.value(f"arith.select {later}, {text.index(self.apart - half)}, {text.index(0)} : index")
        return text.value(f"arith.addi {text.value(f'arith.addi {self.first}, {number} : index')}, {jump} : index")
