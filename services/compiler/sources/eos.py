"""Which tokens end a generation. Reads configuration and tokenizer only."""

from __future__ import annotations

from typing import Any, Final

# Ends of a turn in the chat formats of supported models; a tokenizer that has one of them means it.
_TURN_ENDS: Final = ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "</s>")


def eos_token_ids(config: Any, tokenizer: Any) -> tuple[int, ...]:
    """Tokens that end a generation, ascending: the configuration's, the tokenizer's, and ends of turns."""
    configured = getattr(config, "eos_token_id", None)
    found = set(configured if isinstance(configured, list) else [configured])
    found.add(tokenizer.eos_token_id)
    vocabulary = tokenizer.get_vocab()
    found.update(vocabulary.get(token) for token in _TURN_ENDS)
    return tuple(sorted(int(token) for token in found if token is not None))
