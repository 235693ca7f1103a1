"""Encoders of transformers (BERT, MiniLM …) as a graph from tokens and their mask to hidden states."""

from __future__ import annotations

from typing import Any, Final

import torch

from services.compiler.infer.edges import WideEdges
from services.compiler.infer.graph import Graph, describe
from services.compiler.passes.flat_linear import flatten_linears
from services.compiler.sources.rotary import rotary_limit
from tradewind.domain.errors import UnsupportedModel
from tradewind.domain.tensors import BATCH, LENGTH, TensorSpec

INPUTS: Final = (
    TensorSpec("input_ids", "i64", (BATCH, LENGTH)),
    TensorSpec("attention_mask", "i64", (BATCH, LENGTH)),
)

# Added to the score of padding: far below any score, and still a number in f16.
_HIDDEN: Final = 30000.0
_SAME: Final = 1e-3


class Encoder(torch.nn.Module):
    """A model's tensors of output, by position."""

    def __init__(self, model: Any, names: tuple[str, ...], *, added_mask: bool) -> None:
        """Those named; with `added_mask`, the mask is given as what attention adds to its scores."""
        super().__init__()
        self.model, self._names, self._added_mask = model, names, added_mask

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Tokens and mask i64 [B, T]."""
        if self._added_mask:
            mask = ((mask - 1) * _HIDDEN).to(self.model.dtype)[:, None, None, :]
        answer = self.model(input_ids=tokens, attention_mask=mask)
        return tuple(answer[name] for name in self._names)


def encoder_graph(model: Any) -> Graph:
    """An encoder as a graph; the model is changed in place.

    Raises:
        UnsupportedModel: it gives no tensors for tokens and a mask.
    """
    # Matmuls and a softmax; the fused kernels of PyTorch would stay in the graph as calls of themselves.
    model.set_attn_implementation("eager")
    # First of all: a flat linear widens weights that are kept in a narrower type.
    flatten_linears(model)
    config = model.config
    tokens = torch.zeros(1, 2, dtype=torch.long)
    with torch.no_grad():
        answer = model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    names = tuple(name for name, value in answer.items() if isinstance(value, torch.Tensor))
    if not names:
        raise UnsupportedModel(f"{type(model).__name__} gives no tensors for tokens and a mask")
    # RoBERTa and its kin count positions from behind the padding's, so that their table holds two fewer tokens.
    offset = int(getattr(config, "pad_token_id", 0) or 0) + 1 if _counts_from_padding(model) else 0
    longest = rotary_limit(config) - offset
    encoder = WideEdges(_encoder(model, names, int(config.vocab_size)))
    return describe(encoder, INPUTS, names, {"input_ids": int(config.vocab_size)}, longest)


def _encoder(model: Any, names: tuple[str, ...], vocabulary: int) -> Encoder:
    """The form whose mask IREE compiles best, where the model takes it so; the plain form else."""
    plain, added = (Encoder(model, names, added_mask=added) for added in (False, True))
    tokens = (torch.arange(14).reshape(2, 7) * 37 + 3) % vocabulary
    mask = torch.ones_like(tokens)
    mask[1, 4:] = 0
    with torch.no_grad():
        wanted = plain(tokens, mask)
        try:
            got = added(tokens, mask)
        except (ValueError, TypeError, RuntimeError, IndexError):
            return plain
    # What comes out for padding says nothing; the first sample has none and the second begins without.
    pairs = [(g[:, :4].float(), w[:, :4].float()) for g, w in zip(got, wanted, strict=True)]
    return added if all(torch.allclose(g, w, _SAME, _SAME) for g, w in pairs) else plain


def _counts_from_padding(model: Any) -> bool:
    return any(getattr(module, "create_position_ids_from_input_ids", None) is not None for module in model.modules())
