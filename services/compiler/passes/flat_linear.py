"""Pass "flat-linear": [B, T, D] as [B·T, D] before each linear layer."""

from __future__ import annotations

import torch

from services.compiler.kernels.widened import widened_product


class FlatLinear(torch.nn.Linear):
    """A linear layer that sees [B·T, D]: with [B, T, D] IREE packs the weight once for each row of the batch."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[…, D] in, […, out] out."""
        flat = rows.reshape(-1, rows.shape[-1])
        if self.weight.dtype == rows.dtype:
            answer = torch.nn.functional.linear(flat, self.weight, self.bias)
        else:
            answer = widened_product(flat, self.weight)
            answer = answer if self.bias is None else answer + self.bias
        return answer.reshape(*rows.shape[:-1], answer.shape[-1])


def flatten_linears(model: torch.nn.Module) -> None:
    """Turns every plain linear layer of the model into a FlatLinear, sharing its weights."""
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = FlatLinear
