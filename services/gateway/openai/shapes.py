"""Request bodies in OpenAI's shapes. Parameters that would change the answer and are not served are refused; parameters
that do not matter here (user, store, metadata …) are taken and ignored, as are unknown ones."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from services.gateway.limits import (
    MAX_CHOICES,
    MAX_MESSAGES,
    MAX_SALT_CHARS,
    MAX_STOP_CHARS,
    MAX_STOPS,
    MAX_TOP_LOGPROBS,
)
from services.gateway.openai.refusal import invalid, unsupported
from tradewind.v1 import inference_pb2

# Beyond any context; larger numbers are mistakes and would not fit the contract's field.
_MAX_TOKENS: Final = 10_000_000
# Seeds travel as 64-bit numbers.
_MAX_SEED: Final = 2**64 - 1

Tokens = Annotated[int, Field(ge=1, le=_MAX_TOKENS, strict=True)]
TokenId = Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]


class StreamOptions(BaseModel):
    """How a stream is sent."""

    include_usage: bool | None = None


class Common(BaseModel):
    """What chats and completions share.

    Attributes:
        model: deployment name.
    """

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: Annotated[str, Field(min_length=1, max_length=256)]
    max_tokens: Tokens | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=_MAX_SEED)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Number] | None = None
    ignore_eos: bool | None = None
    cache_salt: Annotated[str, Field(min_length=1, max_length=MAX_SALT_CHARS)] | None = None

    def refuse_unsupported(self) -> None:
        """Refuses what would change the answer and is not served.

        Raises:
            Refusal: names the parameter.
        """
        if self.presence_penalty:
            raise unsupported("presence_penalty", "leave it out or send 0")
        if self.frequency_penalty:
            raise unsupported("frequency_penalty", "leave it out or send 0")
        if self.logit_bias:
            raise unsupported("logit_bias", "leave it out")
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options", "stream_options is only allowed together with stream: true")
        extra: dict[str, Any] = self.model_extra or {}
        for name, hint in _REFUSED.items():
            if extra.get(name):
                raise unsupported(name, hint)

    def stops(self) -> tuple[str, ...]:
        """Stop texts."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def wants_usage(self) -> bool:
        """Whether a stream ends with the figures."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self, index: int, max_tokens: int, logprobs: bool, top_logprobs: int) -> inference_pb2.Sampling:
        """How to generate choice number `index`; each choice of one seed gets a seed of its own."""
        sampling = inference_pb2.Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=self.top_p or 0.0,
            top_k=self.top_k or 0,
            logprobs=logprobs,
            top_logprobs=top_logprobs,
            ignore_eos=bool(self.ignore_eos),
            cache_salt=self.cache_salt or "",
        )
        if self.seed is not None:
            sampling.seed = (self.seed + index) & _MAX_SEED
        return sampling


_REFUSED: Final = {
    "tools": "this server does not call tools; leave it out",
    "functions": "this server does not call functions; leave it out",
    "audio": "only text is served",
    "web_search_options": "only the model's own text is served",
    "suffix": "only continuation is served",
    "use_beam_search": "only sampling is served",
}


class TextPart(BaseModel):
    """A piece of a message; only text is served."""

    type: str
    text: str | None = None


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[TextPart], Field(max_length=MAX_MESSAGES)] | None = None

    def plain(self, index: int) -> dict[str, str]:
        """As a chat template takes it.

        Raises:
            Refusal: it is no text.
        """
        where = f"messages.{index}.content"
        if self.role in ("tool", "function"):
            raise unsupported(f"messages.{index}.role", f"{self.role!r} messages need tools, which are not served")
        if self.content is None:
            raise invalid(where, f"{where} is missing; give a text")
        # Templates know "system"; "developer" is OpenAI's newer name for it.
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return {"role": role, "content": self.content}
        for part in self.content:
            if part.type != "text" or part.text is None:
                raise unsupported(where, f"a part of type {part.type!r}; only parts of type 'text' are served")
        return {"role": role, "content": "".join(part.text or "" for part in self.content)}


class ChatRequest(Common):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: dict[str, Any] | None = None

    def refuse_unsupported(self) -> None:
        """Refuses what is not served."""
        super().refuse_unsupported()
        if self.response_format and self.response_format.get("type") != "text":
            raise unsupported("response_format", 'only {"type": "text"} is served')
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs", "top_logprobs is only allowed together with logprobs: true")

    def output_limit(self) -> int:
        """Most tokens to generate; 0 means as many as fit."""
        return self.max_completion_tokens or self.max_tokens or 0


class CompletionRequest(Common):
    """POST /v1/completions."""

    prompt: (
        str
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=MAX_CHOICES)]
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None

    @field_validator("logprobs", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("a number is needed here (only chats take true or false)")
        return value

    def refuse_unsupported(self) -> None:
        """Refuses what is not served."""
        super().refuse_unsupported()
        if self.echo:
            raise unsupported("echo", "only new text is sent; leave it out")
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise unsupported("best_of", "leave it out or make it equal to n")

    def prompts(self) -> list[str | tuple[int, ...]]:
        """Each prompt, as text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [tuple(item for item in self.prompt if isinstance(item, int))]
        return [item if isinstance(item, str) else tuple(item) for item in self.prompt if not isinstance(item, int)]


def check_choices(prompts: int, n: int) -> None:
    """Refuses more generations in one request than are served.

    Raises:
        Refusal: says the limit.
    """
    if prompts * n > MAX_CHOICES:
        raise invalid("n", f"{prompts} prompts × n = {n} are {prompts * n} choices; at most {MAX_CHOICES} are served")
