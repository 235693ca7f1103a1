"""Figures in OpenAI's answers: usage with energy and its source, log-probabilities. Builds JSON values only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from services.gateway.metrics import source_label
from services.gateway.text.tokenizer import TextModel
from tradewind.v1 import common_pb2, inference_pb2

_FINISH: Final = {
    inference_pb2.FINISH_REASON_STOP: "stop",
    inference_pb2.FINISH_REASON_LENGTH: "length",
    # The client that cancelled does not read this; another one's cancel ends a stream early like a limit.
    inference_pb2.FINISH_REASON_CANCELLED: "length",
}


def finish_reason(reason: inference_pb2.FinishReason.ValueType) -> str | None:
    """OpenAI's word for it."""
    return _FINISH.get(reason)


def usage_json(usages: Sequence[inference_pb2.Usage], prompts: int) -> dict[str, Any]:
    """The "usage" of a request.

    Args:
        usages: one for each choice, prompt by prompt.
        prompts: how many prompts the choices are of; a prompt with n choices counts once, as at OpenAI.

    Energy counts every choice. Its source is the weakest of all parts; when a part has no figure the sum has none.
    """
    each = max(len(usages) // max(prompts, 1), 1)
    prompt_tokens = sum(usage.prompt_tokens for usage in usages[::each])
    output_tokens = sum(usage.output_tokens for usage in usages)
    sources = [usage.energy.source or common_pb2.FIGURE_SOURCE_UNAVAILABLE for usage in usages]
    source = max(sources, default=common_pb2.FIGURE_SOURCE_UNAVAILABLE)
    known = source != common_pb2.FIGURE_SOURCE_UNAVAILABLE
    methods = sorted({usage.energy.method for usage in usages if usage.energy.method})
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(usage.reused_prompt_tokens for usage in usages[::each])},
        "energy_mj": round(sum(usage.energy.energy_mj for usage in usages), 3) if known else None,
        "energy_source": source_label(source),
        "energy_method": ", ".join(methods) or None,
    }


def chat_logprobs(model: TextModel, entries: Sequence[inference_pb2.TokenLogprob]) -> list[dict[str, Any]]:
    """The "logprobs.content" of a chat choice."""

    def token(entry: inference_pb2.TokenLogprob) -> dict[str, Any]:
        content = model.bytes_of(entry.token_id)
        return {"token": content.decode("utf-8", "replace"), "logprob": entry.logprob, "bytes": list(content)}

    return [token(entry) | {"top_logprobs": [token(other) for other in entry.top]} for entry in entries]


class CompletionLogprobs:
    """The "logprobs" of a completion's choice, whose offsets go on from chunk to chunk."""

    def __init__(self, model: TextModel) -> None:
        self._model = model
        self._offset = 0

    def take(self, entries: Sequence[inference_pb2.TokenLogprob]) -> dict[str, Any]:
        """The next tokens, as four lists of equal length."""
        tokens = [self._text(entry) for entry in entries]
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [entry.logprob for entry in entries],
            "top_logprobs": [{self._text(other): other.logprob for other in entry.top} for entry in entries],
            "text_offset": offsets,
        }

    def _text(self, entry: inference_pb2.TokenLogprob) -> str:
        return self._model.bytes_of(entry.token_id).decode("utf-8", "replace")
