"""A node agent's edge: a real gRPC server that speaks InferenceService with tokens decided beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from tradewind.domain.errors import NotFound, TradewindError
from tradewind.rpc.server import GrpcServer
from tradewind.v1 import common_pb2, inference_pb2, inference_pb2_grpc

ENERGY_PER_TOKEN_MJ = 2.5
METHOD = "fake@1"


@dataclass
class Script:
    """What a replica does with each request.

    Attributes:
        ids: tokens it gives, as far as max_tokens allows.
        fail_at: raises `error` before giving the token of this number.
        hold_at: waits for `resume` before giving the token of this number.
    """

    ids: Sequence[int] = ()
    error: TradewindError | None = None
    fail_at: int = 0
    hold_at: int | None = None
    resume: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[inference_pb2.GenerateRequest] = field(default_factory=list)
    deadlines_s: list[float] = field(default_factory=list)


class FakeNode(inference_pb2_grpc.InferenceServiceServicer):
    """Replicas by id, each with a script."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.server = GrpcServer("fake node", "127.0.0.1:0")
        self.server.add(
            inference_pb2_grpc.add_InferenceServiceServicer_to_server, self, "tradewind.v1.InferenceService"
        )

    async def start(self) -> str:
        """Returns the address."""
        await self.server.start()
        await self.server.ready()
        return self.server.address

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """Gives the script's tokens, one a message."""
        script = self.scripts.get(request.replica_id)
        if script is None:
            raise NotFound("replica", request.replica_id)
        script.requests.append(request)
        script.deadlines_s.append(context.time_remaining() or 0.0)
        script.started.set()
        try:
            async for response in _respond(script, request):
                yield response
        except asyncio.CancelledError:
            script.cancelled.set()
            raise
        except GeneratorExit:
            script.cancelled.set()
            raise


async def _respond(
    script: Script, request: inference_pb2.GenerateRequest
) -> AsyncIterator[inference_pb2.GenerateResponse]:
    limit = request.sampling.max_tokens or len(script.ids)
    ids = list(script.ids)[:limit]
    reason = inference_pb2.FINISH_REASON_LENGTH if len(ids) < len(script.ids) else inference_pb2.FINISH_REASON_STOP
    for index, token_id in enumerate([*ids, None]):
        if script.error is not None and index == script.fail_at:
            raise script.error
        if index == script.hold_at:
            await script.resume.wait()
        if token_id is None:
            break
        response = inference_pb2.GenerateResponse(token_ids=[token_id])
        if request.sampling.logprobs:
            top = [inference_pb2.TokenLogprob(token_id=token_id, logprob=-0.5)]
            response.logprobs.add(token_id=token_id, logprob=-0.5, top=top if request.sampling.top_logprobs else None)
        if index == 0:
            response.replica_id = request.replica_id
        yield response
    prompt = len(request.token_ids.ids)
    energy = common_pb2.Energy(
        energy_mj=ENERGY_PER_TOKEN_MJ * len(ids), source=common_pb2.FIGURE_SOURCE_MODELLED, method=METHOD
    )
    usage = inference_pb2.Usage(
        prompt_tokens=prompt, output_tokens=len(ids), energy=energy, reused_prompt_tokens=prompt // 2
    )
    yield inference_pb2.GenerateResponse(finish_reason=reason, usage=usage)
