"""tradewind.v1.InferenceService at the gateway: text or tokens in, text and tokens out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from services.gateway.authorization import ApiKeys
from services.gateway.generation import TextGeneration
from services.gateway.limits import MAX_STOP_CHARS, MAX_STOPS, MAX_TOP_LOGPROBS
from services.gateway.routing.deadline import Deadline
from services.gateway.tensor_service import TensorService
from services.gateway.text_service import TextService, Wish
from tradewind.domain.errors import InvalidField
from tradewind.v1 import inference_pb2, inference_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
_MAX_TEMPERATURE: Final = 2.0


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Generates for any gRPC client.

    Args:
        service: starts generations.
        tensors: asks tensor models.
        keys: who may ask.
        request_limit_s: most seconds a request may take, whatever the caller's deadline.
    """

    def __init__(self, service: TextService, tensors: TensorService, keys: ApiKeys, request_limit_s: float) -> None:
        self._service, self._tensors = service, tensors
        self._keys, self._request_limit_s = keys, request_limit_s

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """Generates; cancel the call to free the slot at once."""
        await self._keys.require_grpc(context)
        wish = wish_of(request)
        deadline = Deadline.within(min(context.time_remaining() or self._request_limit_s, self._request_limit_s))
        generation = await self._service.start(wish, "grpc", deadline)
        try:
            async for response in _responses(generation):
                yield response
        finally:
            generation.close()

    async def Infer(self, request: inference_pb2.InferRequest, context: Context) -> inference_pb2.InferResponse:
        """Maps tensors to tensors."""
        await self._keys.require_grpc(context)
        if not request.deployment:
            raise InvalidField("deployment", "it is missing; name a deployment")
        deadline = Deadline.within(min(context.time_remaining() or self._request_limit_s, self._request_limit_s))
        return (await self._tensors.infer(request.deployment, request.inputs, "grpc", deadline))[1]


async def _responses(generation: TextGeneration) -> AsyncIterator[inference_pb2.GenerateResponse]:
    names = {"replica_id": generation.replica.replica_id, "variant_id": generation.replica.variant_id}
    async for delta in generation:
        yield inference_pb2.GenerateResponse(
            token_ids=delta.token_ids,
            text=delta.text,
            logprobs=delta.logprobs,
            finish_reason=delta.finish_reason,
            usage=delta.usage,
            **names,
        )
        names = {}


def wish_of(request: inference_pb2.GenerateRequest) -> Wish:
    """What a request wishes for.

    Raises:
        InvalidField: it makes no sense.
    """
    if not request.deployment:
        raise InvalidField("deployment", "it is missing; name a deployment")
    kind = request.WhichOneof("prompt")
    if kind is None:
        raise InvalidField("prompt", "it is missing; give text or token_ids")
    check_sampling(request.sampling)
    prompt = request.text if kind == "text" else tuple(request.token_ids.ids)
    stops = tuple(request.sampling.stop)
    sampling = inference_pb2.Sampling()
    sampling.CopyFrom(request.sampling)
    # Stop texts are matched here; replicas know tokens only.
    sampling.ClearField("stop")
    return Wish(request.deployment, prompt, sampling, stops)


def check_sampling(sampling: inference_pb2.Sampling) -> None:
    """Refuses values outside the contract.

    Raises:
        InvalidField: names the field and its range.
    """
    if not 0 <= sampling.temperature <= _MAX_TEMPERATURE:
        raise InvalidField("sampling.temperature", f"{sampling.temperature} is not in [0, {_MAX_TEMPERATURE:g}]")
    if not 0 <= sampling.top_p <= 1:
        raise InvalidField("sampling.top_p", f"{sampling.top_p} is not in [0, 1]")
    if sampling.top_logprobs > MAX_TOP_LOGPROBS:
        raise InvalidField("sampling.top_logprobs", f"{sampling.top_logprobs} is above {MAX_TOP_LOGPROBS}")
    if len(sampling.stop) > MAX_STOPS:
        raise InvalidField("sampling.stop", f"{len(sampling.stop)} stop texts; at most {MAX_STOPS} are taken")
    if any(not 0 < len(stop) <= MAX_STOP_CHARS for stop in sampling.stop):
        raise InvalidField("sampling.stop", f"a stop text has 1 to {MAX_STOP_CHARS} characters")
