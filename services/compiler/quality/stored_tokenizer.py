"""The tokenizer of a model in the store, for whoever asks the model about text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

TOKENIZER: Final = "tokenizer.json"
# A model without a tokenizer is compared on tokens that far apart; a prime, so that all of them come.
_STRIDE: Final = 7919


class StoredTokenizer:
    """tokenizer.json as `make_reference` calls a tokenizer; without the file, a walk through the vocabulary."""

    def __init__(self, folder: Path, vocabulary_size: int) -> None:
        """Of the store's form of a model in a folder."""
        self._path, self._vocabulary_size = folder / TOKENIZER, vocabulary_size

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        """Tokens of a text under "input_ids"."""
        if not self._path.exists():
            return {"input_ids": [_STRIDE * index % self._vocabulary_size for index in range(len(text) // 4)]}
        from tokenizers import Tokenizer

        return {"input_ids": Tokenizer.from_file(str(self._path)).encode(text, add_special_tokens=False).ids}
