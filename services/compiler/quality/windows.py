"""What the source says of many windows of text, in a few bytes a position: its likeliest token, and the likelihood of
the next one. Enough for agreement and perplexity; divergence needs whole rows. Needs no PyTorch."""

from __future__ import annotations

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

    def save(self, path: Path) -> None:
        """Writes them as safetensors."""
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(array) for name, array in asdict(self).items()}, path)

    @classmethod
    def load(cls, path: Path) -> Windows:
        """Reads what `save` wrote."""
        from safetensors.numpy import load_file

        return cls(**load_file(path))
