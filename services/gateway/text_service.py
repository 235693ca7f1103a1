"""Starts generations from text: finds the deployment, loads its text side, makes tokens, checks lengths, dispatches.

The one way in for every interface (OpenAI, InferenceService, Open Inference Protocol); knows none of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from services.gateway.core.energy_estimate import EnergyEstimates
from services.gateway.generation import Account, Arrival, TextGeneration
from services.gateway.limits import INLINE_PROMPT_CHARS, MAX_PROMPT_CHARS
from services.gateway.metrics import GatewayMetrics
from services.gateway.routing.deadline import Deadline
from services.gateway.routing.dispatcher import Dispatcher
from services.gateway.routing.table import RouteTable
from services.gateway.text.library import ModelLibrary
from services.gateway.text.tokenizer import TextModel
from tradewind.domain.errors import ContextExceeded, InvalidField, TradewindError, reason_of
from tradewind.domain.routes import DeploymentRoute
from tradewind.v1 import inference_pb2


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages for a chat template, each with "role" and "content"."""

    messages: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """One generation wished for.

    Attributes:
        deployment: its name.
        prompt: a conversation, a text, or token ids.
        sampling: how; max_tokens 0 means as many as fit.
        stops: texts that end it and are not sent.
    """

    deployment: str
    prompt: Conversation | str | tuple[int, ...]
    sampling: inference_pb2.Sampling
    stops: tuple[str, ...] = ()


class TextService:
    """Starts generations.

    Args:
        table: which deployments there are.
        library: text sides of models.
        dispatcher: brings tokens to replicas.
        metrics: told of each request.
        threads: where long prompts are tokenised.
    """

    def __init__(
        self,
        table: RouteTable,
        library: ModelLibrary,
        dispatcher: Dispatcher,
        metrics: GatewayMetrics,
        threads: Executor,
    ) -> None:
        self._table, self._library, self._dispatcher, self._metrics = table, library, dispatcher, metrics
        self._threads = threads
        self._estimates = EnergyEstimates()

    async def start(self, wish: Wish, interface: str, deadline: Deadline) -> TextGeneration:
        """Starts a generation; returns when its first tokens are there.

        Raises:
            TradewindError: whatever keeps it from starting; nothing is at work then.
        """
        account = Account(self._metrics, self._estimates, Arrival(interface, wish.deployment, time.monotonic()))
        try:
            route = self._table.find(wish.deployment)
            model = await self._library.get(route.model_id)
            prompt = await self._tokens(model, wish.prompt)
            check_lengths(route, len(prompt), wish.sampling.max_tokens, _field(wish.prompt))
            account.asked(len(prompt))
            stream = await self._dispatcher.open(wish.deployment, prompt, wish.sampling, deadline)
        except TradewindError as error:
            account.end(reason_of(error))
            raise
        except BaseException:
            account.end("CANCELLED")
            raise
        return TextGeneration(stream, model, wish.stops, len(prompt), account)

    async def model_of(self, deployment: str) -> TextModel:
        """The text side of a deployment's model."""
        return await self._library.get(self._table.find(deployment).model_id)

    async def _tokens(self, model: TextModel, prompt: Conversation | str | tuple[int, ...]) -> Sequence[int]:
        if isinstance(prompt, tuple):
            check_ids(model, prompt)
            return prompt
        size = len(prompt) if isinstance(prompt, str) else sum(len(m["content"]) for m in prompt.messages)
        if size > MAX_PROMPT_CHARS:
            raise InvalidField(_field(prompt), f"{size} characters; at most {MAX_PROMPT_CHARS} are taken")
        if size <= INLINE_PROMPT_CHARS:
            return _encode(model, prompt)
        return await asyncio.get_running_loop().run_in_executor(self._threads, _encode, model, prompt)


def check_lengths(route: DeploymentRoute, prompt_tokens: int, max_tokens: int, field: str) -> None:
    """Refuses what does not fit the context.

    Raises:
        InvalidField: the prompt is empty.
        ContextExceeded: too long; says the numbers.
    """
    if prompt_tokens == 0:
        raise InvalidField(field, "it is empty; give at least one token")
    context = route.context_tokens
    if context == 0:
        # No replica is ready just now; the one that takes the request checks for itself.
        return
    # At least one token must come out.
    if prompt_tokens + max(max_tokens, 1) <= context:
        return
    wanted = f" and {max_tokens} to generate" if max_tokens else ""
    raise ContextExceeded(
        f"this deployment's context is {context} tokens; the request has {prompt_tokens} tokens in the {field}{wanted}"
        "; shorten it" + (" or lower max_tokens" if max_tokens else ""),
        {"context": str(context), "prompt_tokens": str(prompt_tokens), "max_tokens": str(max_tokens), "field": field},
    )


def check_ids(model: TextModel, ids: Sequence[int]) -> None:
    """Refuses token ids that the model does not have."""
    for token_id in ids:
        if not 0 <= token_id < model.vocabulary_size:
            raise InvalidField("prompt", f"token {token_id} is not in [0, {model.vocabulary_size})")


def _encode(model: TextModel, prompt: Conversation | str) -> list[int]:
    if isinstance(prompt, str):
        return model.encode(prompt, special=True)
    return model.encode(model.render(prompt.messages), special=False)


def _field(prompt: Conversation | str | tuple[int, ...]) -> str:
    return "messages" if isinstance(prompt, Conversation) else "prompt"
