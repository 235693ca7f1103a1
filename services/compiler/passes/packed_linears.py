"""Pass "packed-linears": weights of linear layers in 4 or 8 bits, multiplied by kernels that read them packed."""

from __future__ import annotations

from typing import Any

import torch

from services.compiler.kernels.formats import FORMATS, W8, Format
from services.compiler.kernels.operators import PACKED_LINEAR
from services.compiler.kernels.packing import pack, packs, unpack_rows
from tradewind.domain.errors import UnsupportedModel


class PackedLinear(torch.nn.Module):
    """A linear layer over packed weights."""

    def __init__(
        self, weights: torch.nn.Parameter, scales: torch.nn.Parameter, bias: torch.nn.Parameter | None
    ) -> None:
        """Over weights and scales of `packing.pack`, which it shares."""
        super().__init__()
        self.weights, self.scales, self.bias = weights, scales, bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[…, inputs] in, […, outputs] out; f32."""
        flat: torch.Tensor = PACKED_LINEAR(rows.reshape(-1, rows.shape[-1]), self.weights, self.scales)
        flat = flat if self.bias is None else flat + self.bias
        return flat.reshape(*rows.shape[:-1], flat.shape[-1])


class PackedEmbedding(torch.nn.Module):
    """An embedding over packed weights, which the layer of the logits shares."""

    def __init__(self, weights: torch.nn.Parameter, scales: torch.nn.Parameter) -> None:
        """Over 8-bit weights and scales of `packing.pack`."""
        super().__init__()
        self.weights, self.scales = weights, scales

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """i64 […] in, f32 […, width] out."""
        return unpack_rows(tokens, self.weights, self.scales)


def pack_linears(model: Any, precision: str) -> None:
    """Packs every linear layer whose shape allows it; that of the logits, and an embedding tied to it, in 8 bits.

    Args:
        model: a causal LM in f32; changed in place.
        precision: "w4" or "w8".

    Raises:
        UnsupportedModel: no layer can be packed.
    """
    form, head = FORMATS[precision], _head_of(model)
    tied = _tied_embedding(model, head)
    layers = [
        (owner, name, child)
        for owner in model.modules()
        for name, child in owner.named_children()
        if isinstance(child, torch.nn.Linear) and packs(*child.weight.shape)
    ]
    if not layers:
        raise UnsupportedModel(
            f"no linear layer that {precision} could pack; build it with a recipe of whole numbers: f32-grouped"
        )
    for owner, name, child in layers:
        setattr(owner, name, _packed(child, W8 if child is head else form))
    if tied is not None and isinstance(packed := _head_of(model), PackedLinear):
        model.set_input_embeddings(PackedEmbedding(packed.weights, packed.scales))


def _packed(layer: torch.nn.Linear, form: Format) -> PackedLinear:
    weights, scales = (torch.nn.Parameter(part, requires_grad=False) for part in pack(layer.weight, form))
    return PackedLinear(weights, scales, layer.bias)


def _head_of(model: Any) -> Any:
    return model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None


def _tied_embedding(model: Any, head: Any) -> Any:
    """The embedding that shares the head's weights and only looks them up; None when there is none."""
    embedding = model.get_input_embeddings() if head is not None else None
    return embedding if type(embedding) is torch.nn.Embedding and embedding.weight is head.weight else None
