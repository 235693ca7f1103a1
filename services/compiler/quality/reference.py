"""What the source framework answers, in f32: made once for a model, compared with every variant. Needs PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.compiler.quality.text import Part, cut_pieces, read_text

# Lengths of the pieces of text, in tokens. Four, for four slots; odd and unequal, so that chunks end raggedly and
# slots stand at different positions. About 400 rows of logits: 80 MB at a vocabulary of 49,152.
PIECE_TOKENS: Final = (61, 93, 155, 107)
# Tokens of the greedy run that greedy prefixes are compared on.
GREEDY_TOKENS: Final = 24
GREEDY_PROMPT_TOKENS: Final = 16


@dataclass(frozen=True, slots=True)
class Reference:
    """The source framework's answers.

    Attributes:
        pieces: tokens of each piece of text.
        logits: f32 [tokens, V] of each piece.
        prompt: tokens of the greedy run's prompt.
        continuation: the greedy run's tokens.
    """

    pieces: tuple[tuple[int, ...], ...]
    logits: tuple[npt.NDArray[np.float32], ...]
    prompt: tuple[int, ...]
    continuation: tuple[int, ...]

    def save(self, path: Path) -> None:
        """Writes it as safetensors."""
        from safetensors.numpy import save_file

        tensors: dict[str, npt.NDArray[Any]] = {
            "prompt": np.asarray(self.prompt, np.int64),
            "continuation": np.asarray(self.continuation, np.int64),
        }
        for index, (piece, logits) in enumerate(zip(self.pieces, self.logits, strict=True)):
            tensors[f"piece.{index}"] = np.asarray(piece, np.int64)
            tensors[f"logits.{index}"] = logits
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Reads what `save` wrote."""
        from safetensors.numpy import load_file

        tensors = load_file(path)
        count = sum(name.startswith("piece.") for name in tensors)
        return cls(
            pieces=tuple(tuple(tensors[f"piece.{index}"].tolist()) for index in range(count)),
            logits=tuple(tensors[f"logits.{index}"] for index in range(count)),
            prompt=tuple(tensors["prompt"].tolist()),
            continuation=tuple(tensors["continuation"].tolist()),
        )


def make_reference(model: Any, tokenizer: Any, context_tokens: int, part: Part = Part.REPORTING) -> Reference:
    """Runs the source model on text.

    Args:
        model: in f32.
        tokenizer: its tokenizer.
        context_tokens: longest context; pieces are cut to fit.
        part: which text.
    """
    import torch

    lengths = tuple(min(length, context_tokens) for length in PIECE_TOKENS)
    # A sixth of the text is plenty, and tokenising all of it takes seconds.
    text = read_text(part)
    tokens = tokenizer(text[: len(text) // 6], add_special_tokens=False, verbose=False)["input_ids"]
    pieces = cut_pieces(tokens, lengths)
    with torch.no_grad():
        logits = [model(torch.tensor([piece])).logits[0].float().numpy() for piece in pieces]
    prompt = tuple(pieces[0][:GREEDY_PROMPT_TOKENS])
    return Reference(tuple(map(tuple, pieces)), tuple(logits), prompt, _greedy(model, prompt))


def _greedy(model: Any, prompt: tuple[int, ...]) -> tuple[int, ...]:
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    tokens, taken = torch.tensor([prompt]), []
    with torch.no_grad():
        for _ in range(GREEDY_TOKENS):
            logits = model(tokens, past_key_values=cache, use_cache=True).logits[0, -1]
            taken.append(int(logits.argmax()))
            tokens = torch.tensor([[taken[-1]]])
    return tuple(taken)
