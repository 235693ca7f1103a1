"""The /v1 endpoints: body → wishes → generations → answer. Everything else is elsewhere."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from services.gateway.generation import TextGeneration
from services.gateway.limits import DEFAULT_COMPLETION_TOKENS
from services.gateway.openai.answers import Answer, ChatAnswer, Choice, CompletionAnswer, Head
from services.gateway.openai.body import read_body
from services.gateway.openai.choices import merged, start_all
from services.gateway.openai.documentation import body_of
from services.gateway.openai.event_stream import EventStream, events
from services.gateway.openai.shapes import ChatRequest, Common, CompletionRequest, check_choices
from services.gateway.routing.deadline import Deadline
from services.gateway.routing.table import RouteTable
from services.gateway.text_service import Conversation, TextService, Wish
from tradewind.domain.routes import DeploymentRoute, ReplicaRoute

MakeAnswer = Callable[[Head, Sequence[TextGeneration]], Answer]


class OpenAiEndpoints:
    """Handlers of /v1.

    Args:
        service: starts generations.
        table: which deployments there are.
        request_limit_s: most seconds a request may take.
    """

    def __init__(self, service: TextService, table: RouteTable, request_limit_s: float) -> None:
        self._service, self._table, self._request_limit_s = service, table, request_limit_s
        # Deployments have no creation time in the routing table; OpenAI's shape wants one.
        self._created = int(time.time())

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/v1", tags=["openai"])
        router.add_api_route("/chat/completions", self.chat, methods=["POST"], openapi_extra=body_of(ChatRequest))
        router.add_api_route("/completions", self.complete, methods=["POST"], openapi_extra=body_of(CompletionRequest))
        router.add_api_route("/models", self.list_models, methods=["GET"])
        router.add_api_route("/models/{model:path}", self.get_model, methods=["GET"])
        return router

    async def chat(self, request: Request) -> Response:
        """Answers a conversation, in one piece or as a stream of events."""
        body = await read_body(request, ChatRequest)
        body.refuse_unsupported()
        check_choices(1, body.n or 1)
        messages = tuple(message.plain(index) for index, message in enumerate(body.messages))
        wishes = [
            Wish(
                body.model,
                Conversation(messages),
                body.sampling(index, body.output_limit(), bool(body.logprobs), body.top_logprobs or 0),
                body.stops(),
            )
            for index in range(body.n or 1)
        ]
        return await self._answer(body, wishes, "chat", "chatcmpl", bool(body.logprobs), 1, ChatAnswer)

    async def complete(self, request: Request) -> Response:
        """Continues a text, in one piece or as a stream of events."""
        body = await read_body(request, CompletionRequest)
        body.refuse_unsupported()
        prompts = body.prompts()
        check_choices(len(prompts), body.n or 1)
        limit = body.max_tokens or DEFAULT_COMPLETION_TOKENS
        wishes = [
            Wish(
                body.model,
                prompt,
                body.sampling(index, limit, body.logprobs is not None, body.logprobs or 0),
                body.stops(),
            )
            for prompt in prompts
            for index in range(body.n or 1)
        ]
        logprobs = body.logprobs is not None
        return await self._answer(body, wishes, "completions", "cmpl", logprobs, len(prompts), CompletionAnswer)

    async def list_models(self) -> JSONResponse:
        """Every deployment."""
        self._table.require_known()
        models = [self._model(route) for _, route in sorted(self._table.routes.items())]
        return JSONResponse({"object": "list", "data": models})

    async def get_model(self, model: str) -> JSONResponse:
        """One deployment."""
        return JSONResponse(self._model(self._table.find(model)))

    async def _answer(
        self,
        body: Common,
        wishes: Sequence[Wish],
        interface: str,
        prefix: str,
        logprobs: bool,
        prompts: int,
        make: MakeAnswer,
    ) -> Response:
        generations = await start_all(self._service, wishes, interface, Deadline.within(self._request_limit_s))
        replica = generations[0].replica
        request_id = f"{prefix}-{uuid.uuid4().hex}"
        head = Head(request_id, int(time.time()), body.model, fingerprint(replica), logprobs, prompts)
        answer = make(head, generations)
        headers = {
            "x-request-id": request_id,
            "x-tradewind-variant": f"{replica.variant_name} {replica.variant_id}",
            "x-tradewind-replica": replica.replica_id,
        }
        if body.stream:
            return EventStream(events(answer, generations, usage=body.wants_usage()), headers, generations)
        choices = [Choice() for _ in generations]
        async for index, delta in merged(generations):
            choices[index].add(delta)
        return JSONResponse(answer.whole(choices), headers=headers)

    def _model(self, route: DeploymentRoute) -> dict[str, Any]:
        return {
            "id": route.name,
            "object": "model",
            "created": self._created,
            "owned_by": "tradewind",
            "context_length": route.context_tokens,
            "ready": any(not replica.draining for replica in route.replicas),
            "variants": sorted({replica.variant_name for replica in route.replicas}),
        }


def fingerprint(replica: ReplicaRoute) -> str:
    """Names the variant that answered: same fingerprint, same code and weights."""
    return f"{replica.variant_name}@{replica.variant_id.removeprefix('sha256:')[:12]}"
