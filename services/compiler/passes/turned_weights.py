"""Pass "turned-weights": weights of linear layers are kept [inputs, outputs], so that products read them as they lie.

A product of a weight [outputs, inputs] has to turn what it loads in registers, tile by tile. Turned before, a vector of
outputs is one load; which tiles then pay has to be told to the compiler, see `services.compiler.tuning`.
"""

from __future__ import annotations

from typing import Any

import torch


class TurnedLinear(torch.nn.Module):
    """A linear layer over a weight [inputs, outputs]."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        """Turns the weight of a layer."""
        super().__init__()
        self.weight = torch.nn.Parameter(layer.weight.detach().t().contiguous(), requires_grad=False)
        self.bias = layer.bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[…, inputs] in, […, outputs] out."""
        flat = rows.reshape(-1, rows.shape[-1]) @ self.weight
        answer = flat if self.bias is None else flat + self.bias
        return answer.reshape(*rows.shape[:-1], answer.shape[-1])


def turn_linears(model: Any) -> None:
    """Turns every linear layer of a causal LM but one that shares its weight with the embedding, which reads rows."""
    embedding = model.get_input_embeddings()
    for owner in list(model.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, torch.nn.Linear) and child.weight is not embedding.weight:
                setattr(owner, name, TurnedLinear(child))
