"""What the source says of many windows of text, in a few bytes a position: its likeliest token, and the likelihood of
the next one. Enough for agreement and perplexity; divergence needs whole rows. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one length T.

    Attributes:
        tokens: i64 [W, T].
        best: i32 [W, T], the source's likeliest token after each position.
        log_likelihoods: f32 [W, T - 1] in nats, what the source gives the text's next token.
    """

    tokens: npt.NDArray[np.int64]
    best: npt.NDArray[np.int32]
    log_likelihoods: npt.NDArray[np.float32]

    @classmethod
    def of(cls, windows: Iterable[list[int]], logits: Iterable[npt.NDArray[np.float32]]) -> Windows:
        """Of tokens and the source's logits f32 [T, V] of each window, which are looked at one by one."""
        tokens, best, likelihoods = [], [], []
        for window, rows in zip(windows, logits, strict=True):
            shifted = rows - rows.max(axis=1, keepdims=True)
            of_next = shifted[np.arange(len(window) - 1), window[1:]]
            tokens.append(window)
            best.append(rows.argmax(axis=1))
            likelihoods.append(of_next - np.log(np.exp(shifted[:-1]).sum(axis=1, dtype=np.float64)))
        return cls(np.asarray(tokens, np.int64), np.asarray(best, np.int32), np.asarray(likelihoods, np.float32))

    def save(self, path: Path) -> None:
        """Writes them as safetensors."""
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(array) for name, array in asdict(self).items()}, path)

    @classmethod
    def load(cls, path: Path) -> Windows:
        """Reads what `save` wrote."""
        from safetensors.numpy import load_file

        return cls(**load_file(path))
