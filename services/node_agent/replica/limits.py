"""Checks of a generation request before any work. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from services.node_agent.core.sampling import Choice
from tradewind.domain.errors import ContextExceeded, InvalidField
from tradewind.v1 import inference_pb2

# As the contract says.
MAX_SALT_BYTES: Final = 256


def choice_of(sampling: inference_pb2.Sampling, seed: int) -> Choice:
    """How tokens are chosen.

    Args:
        sampling: as asked.
        seed: used when none was asked for.

    Raises:
        InvalidField: a value out of range.
    """
    return Choice(
        temperature=sampling.temperature,
        top_p=sampling.top_p or 1.0,
        top_k=sampling.top_k,
        seed=sampling.seed if sampling.HasField("seed") else seed,
        logprobs=sampling.logprobs,
        top_logprobs=sampling.top_logprobs,
    )


def salt_of(sampling: inference_pb2.Sampling) -> str:
    """Whose cached rows may be used.

    Raises:
        InvalidField: too long.
    """
    if len(sampling.cache_salt.encode()) > MAX_SALT_BYTES:
        raise InvalidField("sampling.cache_salt", f"at most {MAX_SALT_BYTES} bytes; 16 random letters will do")
    return sampling.cache_salt


def prompt_of(request: inference_pb2.GenerateRequest, vocabulary_size: int) -> Sequence[int]:
    """The prompt's token ids.

    Raises:
        InvalidField: text, nothing, or a token outside the vocabulary.
    """
    if request.WhichOneof("prompt") != "token_ids" or not request.token_ids.ids:
        raise InvalidField("token_ids", "a replica takes a prompt of at least one token id; text goes to the gateway")
    ids = request.token_ids.ids
    if max(ids) >= vocabulary_size:
        raise InvalidField("token_ids", f"token {max(ids)} is outside the vocabulary of {vocabulary_size}")
    return ids


def output_limit(prompt_tokens: int, max_tokens: int, context_tokens: int) -> int:
    """Tokens to generate at most, at least 1.

    Raises:
        ContextExceeded: the prompt, or prompt and wanted output, do not fit.
    """
    room = context_tokens - prompt_tokens
    if room < 1 or max_tokens > room:
        wanted = f" and {max_tokens} wanted" if max_tokens else ""
        raise ContextExceeded(
            f"{prompt_tokens} prompt tokens{wanted} do not fit the context of {context_tokens}; shorten the prompt or "
            "ask for fewer tokens",
            {"context": str(context_tokens), "prompt_tokens": str(prompt_tokens), "max_tokens": str(max_tokens)},
        )
    return max_tokens or room
