"""Token ids to text, one at a time, without ever sending half a character. Pure: works on a loaded tokenizer.

Two kinds. Byte-level tokenizers (GPT-2, Llama 3, Qwen, SmolLM …) map each token to bytes on its own, so an incremental
UTF-8 decoder does it exactly in constant time. All others (SentencePiece, WordPiece …) look at neighbours: a window of
the last tokens is decoded with and without the new one and the difference goes out.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

# A character is at most four bytes, hence at most four byte tokens; a window that ends in a replacement character for
# longer than this holds bytes that will never become one.
MAX_PENDING_TOKENS: Final = 8
_REPLACEMENT: Final = "\ufffd"


class Detokenizer(Protocol):
    """Turns a stream of token ids into a stream of text."""

    def push(self, token_id: int) -> str:
        """Text that is complete with this token; may be empty."""

    def finish(self) -> str:
        """What is left at the end; bytes that make no character become U+FFFD."""


class Decoding(Protocol):
    """The part of a tokenizer that `WindowDetokenizer` needs."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids."""


def byte_alphabet() -> dict[str, int]:
    """Character → byte of byte-level vocabularies (GPT-2's table: printable Latin-1 stands for itself, the rest is
    moved to U+0100 and up, in order)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def token_bytes(token: str, alphabet: Mapping[str, int]) -> bytes:
    """Bytes of a byte-level token; a token with other characters (an added one) is its own text."""
    try:
        return bytes([alphabet[character] for character in token])
    except KeyError:
        return token.encode("utf-8", "replace")


class ByteLevelDetokenizer:
    """For byte-level tokenizers.

    Args:
        pieces: bytes of each token id; special tokens are missing and give no text.
    """

    def __init__(self, pieces: Mapping[int, bytes]) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Text that is complete with this token."""
        return self._decoder.decode(self._pieces.get(token_id, b""))

    def finish(self) -> str:
        """What is left."""
        return self._decoder.decode(b"", final=True)


class WindowDetokenizer:
    """For every other tokenizer.

    Keeps the tokens of the last text sent (`_read` of them) as context, since some decoders treat the first token in a
    way of its own (they strip its space).

    Args:
        tokenizer: decodes whole lists.
        special: ids that never give text.
    """

    def __init__(self, tokenizer: Decoding, special: Collection[int]) -> None:
        self._tokenizer, self._special = tokenizer, special
        self._window: list[int] = []
        self._read = 0

    @property
    def kept_tokens(self) -> int:
        """Tokens kept as context or because their text is not complete; at most twice `MAX_PENDING_TOKENS`."""
        return len(self._window)

    def push(self, token_id: int) -> str:
        """Text that is complete with this token."""
        if token_id in self._special:
            return ""
        self._window.append(token_id)
        text, before = self._decode(self._window), self._decode(self._window[: self._read])
        pending = len(self._window) - self._read
        if pending < MAX_PENDING_TOKENS and (text.endswith(_REPLACEMENT) or len(text) <= len(before)):
            return ""
        return self._send(text[len(before) :])

    def finish(self) -> str:
        """What is left."""
        before = self._decode(self._window[: self._read])
        return self._send(self._decode(self._window)[len(before) :])

    def _send(self, text: str) -> str:
        self._window = self._window[self._read :]
        self._read = len(self._window)
        return text

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)
