"""What the source framework answers, in f32: made once for a model, compared with every variant. Needs PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.compiler.quality.text import Part, pieces_of, windows_of
from services.compiler.quality.windows import Windows

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

    pieces = pieces_of(tokenizer, part, context_tokens)
    prompt = tuple(pieces[0][:GREEDY_PROMPT_TOKENS])
    with torch.no_grad():
        logits = tuple(_answer(model, piece).numpy() for piece in pieces)
        return Reference(tuple(map(tuple, pieces)), logits, prompt, _greedy(model, prompt))


def make_windows(
    model: Any, tokenizer: Any, context_tokens: int, part: Part, report: Callable[[int, int], None]
) -> Windows:
    """Runs the source model on many more windows of text; see `make_reference`.

    Args:
        model: in f32.
        tokenizer: its tokenizer.
        context_tokens: longest context; windows are cut to fit.
        part: which text.
        report: hears how many windows are done, of how many.
    """
    import torch

    windows = windows_of(tokenizer, part, context_tokens)
    best = np.zeros((len(windows), len(windows[0])), np.int32)
    likelihoods = np.zeros((len(windows), len(windows[0]) - 1), np.float32)
    with torch.no_grad():
        for number, window in enumerate(windows):
            report(number, len(windows))
            logits = _answer(model, window)
            following = torch.tensor(window[1:])[:, None]
            best[number] = logits.argmax(1).numpy()
            likelihoods[number] = (logits[:-1].gather(1, following)[:, 0] - logits[:-1].logsumexp(1)).numpy()
    return Windows(np.asarray(windows, np.int64), best, likelihoods)


def _answer(model: Any, tokens: list[int]) -> Any:
    """Logits f32 [tokens, V]."""
    import torch

    return model(torch.tensor([tokens])).logits[0].float()


def _greedy(model: Any, prompt: tuple[int, ...]) -> tuple[int, ...]:
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    tokens, taken = torch.tensor([prompt]), []
    for _ in range(GREEDY_TOKENS):
        logits = model(tokens, past_key_values=cache, use_cache=True).logits[0, -1]
        taken.append(int(logits.argmax()))
        tokens = torch.tensor([[taken[-1]]])
    return tuple(taken)
