"""InferenceService of the agent: finds the replica and passes its stream on, as bytes. Looks at no token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any, Final

import grpc

from services.node_agent.supervision.fleet import Fleet
from tradewind.domain.errors import InvalidField, JobTimeout, ReplicaLost, ServiceUnavailable, TradewindError
from tradewind.rpc.errors import from_rpc_error
from tradewind.v1 import inference_pb2

SERVICE: Final = "tradewind.v1.InferenceService"


class InferenceProxy:
    """Passes requests on to replicas.

    Args:
        fleet: where they are.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def generate(self, request: inference_pb2.GenerateRequest, context: Any) -> AsyncIterator[bytes]:
        """See the contract; each answer is a serialized GenerateResponse."""
        if not request.replica_id:
            raise InvalidField("replica_id", "a node agent needs to know which replica; deployments go to the gateway")
        replica = self._fleet.find(request.replica_id)
        with ExitStack() as stack:
            process = stack.enter_context(replica.holding())
            call = process.generate(request, context.time_remaining())
            stack.callback(call.cancel)
            # When the client is gone the replica must hear of it at once, also while this waits to be resumed.
            context.add_done_callback(lambda _: call.cancel())
            try:
                async for piece in call:
                    yield piece
            except asyncio.CancelledError:
                # Either this call was cancelled (its client is gone), or the replica's channel was closed under it.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise _lost(request.replica_id) from None
            except grpc.aio.AioRpcError as error:
                raise _of_replica(error, request.replica_id) from error

    async def infer(self, request: inference_pb2.InferRequest, context: Any) -> bytes:
        """See the contract; the answer is a serialized InferResponse."""
        if not request.replica_id:
            raise InvalidField("replica_id", "a node agent needs to know which replica; deployments go to the gateway")
        with self._fleet.find(request.replica_id).holding() as process:
            try:
                return await process.infer(request, context.time_remaining())
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise _lost(request.replica_id) from None
            except grpc.aio.AioRpcError as error:
                raise _of_replica(error, request.replica_id) from error


def _of_replica(error: grpc.aio.AioRpcError, replica_id: str) -> TradewindError:
    """What a failed call to a replica means to its caller."""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return JobTimeout("the answer was not done in time; ask for less, or give it longer")
    known = from_rpc_error(error, f"replica {replica_id}")
    lost = isinstance(known, ServiceUnavailable) or error.code() is grpc.StatusCode.CANCELLED
    return _lost(replica_id) if lost else known


def _lost(replica_id: str) -> ReplicaLost:
    return ReplicaLost(f"replica {replica_id} died while it worked on the request; try again", {"replica": replica_id})


def register(proxy: InferenceProxy, server: grpc.aio.Server) -> None:
    """Adds the service with answers that are bytes already, so that tokens are not parsed and written again."""
    handlers = {
        "Generate": grpc.unary_stream_rpc_method_handler(
            proxy.generate,
            request_deserializer=inference_pb2.GenerateRequest.FromString,
            response_serializer=None,
        ),
        "Infer": grpc.unary_unary_rpc_method_handler(
            proxy.infer,
            request_deserializer=inference_pb2.InferRequest.FromString,
            response_serializer=None,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
