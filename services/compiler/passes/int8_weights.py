"""Passes "int8-weights" and "int8-activations": linear layers over 8-bit weights, in operators that every target has.

A weight is scale · q, one scale for each output. What the kernels of "packed-linears" do with AVX2 these leave to IREE:
weights are widened inside the product, or the rows are rounded to 8 bits, too, and whole numbers multiplied.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from services.compiler.kernels.widened import widened_product
from services.compiler.passes.flat_linear import flatten_linears
from tradewind.domain.errors import UnsupportedModel

# The largest weight of an output, and the largest number of a row, become this.
_LEVELS: Final = 127
# Keeps rows and weights that are all zero from dividing by zero; far below any that are not, and a number in f32.
_LEAST_STEP: Final = 1e-12


class Int8Linear(torch.nn.Module):
    """A linear layer over 8-bit weights."""

    def __init__(self, layer: torch.nn.Linear, *, rounds_rows: bool) -> None:
        """Rounds the weights of a layer.

        Args:
            layer: in f32.
            rounds_rows: whether the rows it is given are rounded to 8 bits, each with a step of its own.
        """
        super().__init__()
        numbers, steps = rounded(layer.weight.detach())
        self.weight = torch.nn.Parameter(numbers, requires_grad=False)
        self.steps = torch.nn.Parameter(steps[:, 0], requires_grad=False)
        self.bias, self._rounds_rows = layer.bias, rounds_rows

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[…, inputs] in, […, outputs] out, in the type of the rows."""
        flat = rows.reshape(-1, rows.shape[-1])
        product = self._of_whole_numbers(flat) if self._rounds_rows else self._widened(flat)
        answer = product if self.bias is None else product + self.bias
        return answer.reshape(*rows.shape[:-1], answer.shape[-1])

    def _widened(self, rows: torch.Tensor) -> torch.Tensor:
        sums: torch.Tensor = widened_product(rows, self.weight)
        return (sums * self.steps.float()).to(rows.dtype)

    def _of_whole_numbers(self, rows: torch.Tensor) -> torch.Tensor:
        numbers, steps = rounded(rows.float())
        sums: torch.Tensor = torch._int_mm(numbers, self.weight.t())
        return (sums.float() * steps * self.steps.float()).to(rows.dtype)


def rounded(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """f32 [n, k] → whole numbers i8 [n, k] of at most 127, and the step of each row, f32 [n, 1]."""
    steps = (rows.abs().amax(-1, keepdim=True) / _LEVELS).clamp_min(_LEAST_STEP)
    return torch.round(rows / steps).clamp(-_LEVELS, _LEVELS).to(torch.int8), steps


def int8_linears(model: Any, *, rounds_rows: bool, computed: torch.dtype = torch.float32) -> None:
    """Rounds every linear layer but that of the logits, which is kept in f16, as the embedding is.

    In 8 bits that layer alone cost SmolLM2 as much as all others together, see docs/passes.md.

    Args:
        model: a causal LM in f32; changed in place.
        rounds_rows: whether activations are rounded, too. The logits' layer takes them as they are.
        computed: what rows of the embedding are widened to.

    Raises:
        UnsupportedModel: it has no linear layer.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    layers = [
        (owner, name, child)
        for owner in model.modules()
        for name, child in owner.named_children()
        if isinstance(child, torch.nn.Linear) and child is not head
    ]
    if not layers:
        raise UnsupportedModel("no linear layer to keep in 8 bits; build it with a recipe such as f32-grouped")
    for owner, name, child in layers:
        setattr(owner, name, Int8Linear(child, rounds_rows=rounds_rows))
    for kept in (head, embedding):
        if kept is not None:
            kept.weight.data = kept.weight.data.half()
    if head is not None:
        flatten_linears(head)
    embedding.register_forward_hook(lambda _module, _args, rows: rows.to(computed))
