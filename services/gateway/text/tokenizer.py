"""The text side of one model: its tokenizer and chat template, loaded. Knows nothing of where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer

from services.gateway.core.detokenizer import (
    ByteLevelDetokenizer,
    Detokenizer,
    WindowDetokenizer,
    byte_alphabet,
    token_bytes,
)
from services.gateway.text.chat_template import ChatTemplate
from tradewind.domain.errors import BadModelSource, InvalidField


class TextModel:
    """Text to tokens and back for one model. Safe to use from several threads.

    Args:
        tokenizer_json: content of tokenizer.json.
        template: content of chat_template.jinja; None when the model has none.
        eos_token_ids: the model's own, for the template's eos_token.

    Raises:
        BadModelSource: tokenizer.json is none.
        InvalidField: the template is no Jinja.
    """

    def __init__(self, tokenizer_json: str, template: str | None, eos_token_ids: Sequence[int]) -> None:
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_str(tokenizer_json)
            facts = json.loads(tokenizer_json)
        except Exception as error:
            raise BadModelSource(f"tokenizer.json cannot be read: {error}; import the model again") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocabulary_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = frozenset(i for i, token in added.items() if token.special)
        self._pieces = self._byte_pieces() if _is_byte_level(facts) else None
        variables = {"bos_token": self._bos_token(), "eos_token": self._eos_token(eos_token_ids)}
        self._template = None if template is None else ChatTemplate(template, variables)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text.

        Args:
            text: any text.
            special: whether to add what the tokenizer puts around a text (a beginning-of-text token); False for text
                that a chat template made, which has it already.

        Raises:
            InvalidField: it holds half a surrogate pair.
        """
        try:
            return list(self._tokenizer.encode(text, add_special_tokens=special).ids)
        except (UnicodeEncodeError, TypeError) as error:
            raise InvalidField("prompt", "it holds half of a surrogate pair, which is no character") from error

    def decode(self, ids: Sequence[int]) -> str:
        """The whole text of token ids, special tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt for a conversation.

        Raises:
            InvalidField: the model has no chat template, or it refuses the messages.
        """
        if self._template is None:
            raise InvalidField("messages", "this model has no chat template; use /v1/completions with a prompt instead")
        return self._template.render(messages)

    def detokenizer(self) -> Detokenizer:
        """A fresh incremental detokeniser."""
        if self._pieces is not None:
            return ByteLevelDetokenizer(self._pieces)
        return WindowDetokenizer(self._tokenizer, self._special)

    def bytes_of(self, token_id: int) -> bytes:
        """Bytes of one token on its own, for log-probabilities; special tokens are their own name."""
        if self._pieces is not None and token_id in self._pieces:
            return self._pieces[token_id]
        token = self._tokenizer.id_to_token(token_id)
        if self._pieces is None and token is not None:
            return str(self._tokenizer.decode([token_id], skip_special_tokens=False)).encode()
        return (token or "").encode()

    def _byte_pieces(self) -> dict[int, bytes]:
        alphabet = byte_alphabet()
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        return {i: token_bytes(token, alphabet) for token, i in vocabulary.items() if i not in self._special}

    def _bos_token(self) -> str:
        """What the tokenizer itself puts before an empty text."""
        ids = self._tokenizer.encode("", add_special_tokens=True).ids
        return (self._tokenizer.id_to_token(ids[0]) or "") if ids else ""

    def _eos_token(self, eos_token_ids: Sequence[int]) -> str:
        return (self._tokenizer.id_to_token(eos_token_ids[0]) or "") if eos_token_ids else ""


def _is_byte_level(facts: Mapping[str, object]) -> bool:
    decoder = facts.get("decoder")
    return isinstance(decoder, dict) and decoder.get("type") == "ByteLevel"
