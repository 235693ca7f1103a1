"""Answers in OpenAI's shapes, whole and in chunks. Builds JSON values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.gateway.generation import Delta, TextGeneration
from services.gateway.openai.figures import CompletionLogprobs, chat_logprobs, finish_reason, usage_json
from tradewind.v1 import inference_pb2


@dataclass(slots=True)
class Choice:
    """One choice as it grows, for an answer in one piece."""

    text: str = ""
    logprobs: list[inference_pb2.TokenLogprob] = field(default_factory=list)
    reason: str | None = None
    usage: inference_pb2.Usage | None = None

    def add(self, delta: Delta) -> None:
        """Takes what is new."""
        self.text += delta.text
        self.logprobs.extend(delta.logprobs)
        if delta.finish_reason:
            self.reason, self.usage = finish_reason(delta.finish_reason), delta.usage


@dataclass(frozen=True, slots=True)
class Head:
    """What every answer of one request begins with."""

    request_id: str
    created: int
    model: str
    fingerprint: str
    logprobs: bool
    prompts: int

    def json(self, kind: str) -> dict[str, Any]:
        """The common fields."""
        return {
            "id": self.request_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def usage(self, usages: Sequence[inference_pb2.Usage | None]) -> dict[str, Any]:
        """The "usage" field."""
        return usage_json([usage for usage in usages if usage is not None], self.prompts)


class Answer(Protocol):
    """The shape of one interface."""

    def openers(self) -> list[dict[str, Any]]:
        """Chunks before any text."""

    def chunk(self, index: int, delta: Delta) -> dict[str, Any]:
        """A chunk with what is new of a choice."""

    def tail(self, usages: Sequence[inference_pb2.Usage | None]) -> dict[str, Any]:
        """The last chunk, with the figures."""

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer in one piece."""


class ChatAnswer:
    """Answers of /v1/chat/completions."""

    def __init__(self, head: Head, generations: Sequence[TextGeneration]) -> None:
        self._head, self._generations = head, generations

    def openers(self) -> list[dict[str, Any]]:
        """Each choice says its role."""
        return [
            self._chunk([self._part(index, {"role": "assistant", "content": ""}, None, None)])
            for index in range(len(self._generations))
        ]

    def chunk(self, index: int, delta: Delta) -> dict[str, Any]:
        """A chunk with what is new of a choice."""
        content = {"content": delta.text} if delta.text else {}
        return self._chunk(
            [self._part(index, content, self._logprobs(index, delta.logprobs), finish_reason(delta.finish_reason))]
        )

    def tail(self, usages: Sequence[inference_pb2.Usage | None]) -> dict[str, Any]:
        """The last chunk, with the figures."""
        return self._chunk([]) | {"usage": self._head.usage(usages)}

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer in one piece."""
        return self._head.json("chat.completion") | {
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": choice.text, "refusal": None},
                    "logprobs": self._logprobs(index, choice.logprobs),
                    "finish_reason": choice.reason,
                }
                for index, choice in enumerate(choices)
            ],
            "usage": self._head.usage([choice.usage for choice in choices]),
        }

    def _logprobs(self, index: int, entries: Sequence[inference_pb2.TokenLogprob]) -> dict[str, Any] | None:
        if not self._head.logprobs:
            return None
        return {"content": chat_logprobs(self._generations[index].model, entries), "refusal": None}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self._head.json("chat.completion.chunk") | {"choices": choices}

    @staticmethod
    def _part(index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


class CompletionAnswer:
    """Answers of /v1/completions."""

    def __init__(self, head: Head, generations: Sequence[TextGeneration]) -> None:
        self._head = head
        self._logprobs = [CompletionLogprobs(generation.model) for generation in generations]

    def openers(self) -> list[dict[str, Any]]:
        """None: text comes first."""
        return []

    def chunk(self, index: int, delta: Delta) -> dict[str, Any]:
        """A chunk with what is new of a choice."""
        part = self._part(index, delta.text, delta.logprobs, finish_reason(delta.finish_reason))
        return self._head.json("text_completion") | {"choices": [part]}

    def tail(self, usages: Sequence[inference_pb2.Usage | None]) -> dict[str, Any]:
        """The last chunk, with the figures."""
        return self._head.json("text_completion") | {"choices": [], "usage": self._head.usage(usages)}

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer in one piece."""
        return self._head.json("text_completion") | {
            "choices": [
                self._part(index, choice.text, choice.logprobs, choice.reason) for index, choice in enumerate(choices)
            ],
            "usage": self._head.usage([choice.usage for choice in choices]),
        }

    def _part(
        self, index: int, text: str, entries: Sequence[inference_pb2.TokenLogprob], reason: str | None
    ) -> dict[str, Any]:
        logprobs = self._logprobs[index].take(entries) if self._head.logprobs else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
