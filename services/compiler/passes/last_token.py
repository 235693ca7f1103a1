"""Pass "last-token-logits": a prompt chunk gives one token's logits, so that the vocabulary's layer has one row."""

from __future__ import annotations

from typing import Any

import torch


def ask(kept: torch.Tensor | int, last_token: bool) -> dict[str, Any]:
    """What a causal LM of transformers is called with, so that it computes logits of the token kept only.

    Args:
        kept: how many tokens at the end, or the index [1] of one.
        last_token: whether the pass is on; without it the model computes all tokens' logits.
    """
    return {"logits_to_keep": kept} if last_token else {}


def logits_of(logits: torch.Tensor, kept: torch.Tensor | int, last_token: bool) -> torch.Tensor:
    """Logits [B, V] of the token kept, out of what the model gave: [B, 1, V] with the pass, [B, T, V] without."""
    if last_token or isinstance(kept, int):
        return logits[:, -1].float()
    return logits.index_select(1, kept)[:, 0].float()
