"""InferenceService of a replica that maps tensors to tensors: requests into the engine, answers out. No batching."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from services.node_agent.core.batching import Batching
from services.node_agent.core.energy import Rate
from services.node_agent.replica.infer_engine import InferEngine, InferWork
from services.node_agent.replica.latencies import Latencies
from services.node_agent.replica.tensors import arrays_of, messages_of
from tradewind.domain.errors import InvalidField, NotFound, NotImplementedYet
from tradewind.domain.infer_manifest import InferManifest
from tradewind.domain.padding import Extent
from tradewind.v1 import common_pb2, inference_pb2, inference_pb2_grpc


class TensorInference(inference_pb2_grpc.InferenceServiceServicer):
    """Infers.

    Args:
        replica_id: whom it speaks for.
        manifest: of the variant that the engine runs.
        engine: running.
        batching: of the engine.
        rate: what CPU time costs, until told otherwise.
        latencies: told of each finished request.
    """

    def __init__(
        self,
        replica_id: str,
        manifest: InferManifest,
        engine: InferEngine,
        batching: Batching,
        rate: Rate,
        latencies: Latencies,
    ) -> None:
        self._replica_id, self._manifest, self._engine = replica_id, manifest, engine
        self._batching = batching
        self.rate = rate
        self._latencies = latencies
        self._ids = itertools.count(1)

    async def Infer(self, request: inference_pb2.InferRequest, context: Any) -> inference_pb2.InferResponse:
        """See the contract."""
        if request.replica_id and request.replica_id != self._replica_id:
            raise NotFound("replica", request.replica_id, f"this is {self._replica_id}")
        inputs, extent = arrays_of(request.inputs, self._manifest.inputs)
        self._check(extent)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[InferWork] = loop.create_future()

        def settle(work: InferWork) -> None:
            if not done.done():
                done.set_result(work)

        def deliver(work: InferWork) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, work)

        work = InferWork(next(self._ids), inputs, extent, deliver)
        self._engine.submit(work)
        try:
            await done
        finally:
            self._engine.cancel(work.request_id)
        if work.error is not None:
            raise work.error
        self._latencies.finished(work.ended_s - work.arrived_s, None, 0)
        outputs = messages_of(work.outputs, self._manifest.outputs)
        return inference_pb2.InferResponse(outputs=outputs, usage=self._usage(work))

    async def Generate(self, request: inference_pb2.GenerateRequest, context: Any) -> Any:
        """Not in this variant: it maps tensors to tensors."""
        raise NotImplementedYet("this model maps tensors to tensors; ask it by Infer")
        yield

    def _check(self, extent: Extent) -> None:
        if extent.rows > self._batching.most_rows:
            raise InvalidField(
                "inputs", f"{extent.rows} samples; a request takes at most {self._batching.most_rows}: send several"
            )
        if self._batching.length_for(extent.length) is None:
            lengths = sorted({f.length for f in self._manifest.functions})
            wish = f"at most {lengths[-1]}" if self._manifest.mask else " or ".join(map(str, lengths))
            raise InvalidField("inputs", f"samples are {extent.length} long; this variant takes {wish}")

    def _usage(self, work: InferWork) -> inference_pb2.Usage:
        energy = self.rate.charge(work.core_s)
        return inference_pb2.Usage(
            energy=common_pb2.Energy(
                energy_mj=energy.energy_mj,
                source=common_pb2.FigureSource.ValueType(energy.source),
                method=energy.method,
            ),
            ttft_ms=(work.ended_s - work.arrived_s) * 1e3,
            queue_ms=(work.began_s - work.arrived_s) * 1e3,
        )
