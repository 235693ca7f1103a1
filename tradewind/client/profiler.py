"""The profiler, as a client sees it: measurements, fronts, predictions."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

from tradewind.client.operations import OperationsClient
from tradewind.client.wire import Wire
from tradewind.v1 import common_pb2, operation_pb2, profiler_pb2, profiler_pb2_grpc

# Longer than the profiler waits for its node.
EXPLAIN_LIMIT_S: Final = 1_300.0


class ProfilerClient:
    """Measures variants and reads what they cost.

    Every method raises RemoteError when the profiler refuses and ServiceUnavailable when it does not answer.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub: Any = profiler_pb2_grpc.ProfilerServiceStub(wire.channel)
        self.operations = OperationsClient(wire)

    def run(
        self,
        model: str,
        *,
        variants: Sequence[str] = (),
        partition_kinds: Sequence[str] = (),
        prompt_tokens: Sequence[int] = (),
        concurrencies: Sequence[int] = (),
        nodes: Sequence[str] = (),
        power_settings: Sequence[common_pb2.PowerSetting] = (),
        planned_clocks: bool = False,
        force: bool = False,
        request_id: str = "",
    ) -> operation_pb2.Operation:
        """Starts a measurement; its results are profile ids, those of profiles known already too."""
        request = profiler_pb2.RunProfileRequest(
            request_id=request_id or uuid.uuid4().hex,
            model=model,
            variant_ids=variants,
            partition_kinds=partition_kinds,
            prompt_tokens=prompt_tokens,
            concurrencies=concurrencies,
            node_ids=nodes,
            power_settings=power_settings,
            planned_clocks=planned_clocks,
            force=force,
        )
        operation: operation_pb2.Operation = self._wire.call(self._stub.RunProfile, request).operation
        return operation

    def profiles(self, model: str = "", *, variant_id: str = "") -> list[profiler_pb2.Profile]:
        """Profiles kept, newest first."""
        request = profiler_pb2.ListProfilesRequest(model=model, variant_id=variant_id)
        return self._wire.pages(self._stub.ListProfiles, request, "profiles")

    def pareto_front(
        self, model: str, *, prompt_tokens: int = 0, concurrency: int = 0, include_dominated: bool = False
    ) -> list[profiler_pb2.ParetoPoint]:
        """Points that no other beats, by rising energy."""
        request = profiler_pb2.GetParetoFrontRequest(
            model=model,
            prompt_tokens=prompt_tokens,
            concurrency=concurrency,
            include_dominated=include_dominated,
        )
        return list(self._wire.call(self._stub.GetParetoFront, request).points)

    def predict(
        self, point: common_pb2.OperatingPoint, *, prompt_tokens: int, output_tokens: int, concurrency: int = 1
    ) -> profiler_pb2.PredictResponse:
        """What a load would cost at an operating point."""
        request = profiler_pb2.PredictRequest(
            point=point, prompt_tokens=prompt_tokens, output_tokens=output_tokens, concurrency=concurrency
        )
        response: profiler_pb2.PredictResponse = self._wire.call(self._stub.Predict, request)
        return response

    def explain(
        self, variant_id: str, *, function: str = "", partition_kind: str = "", node: str = ""
    ) -> profiler_pb2.ExplainVariantResponse:
        """Where a variant's time goes; takes as long as some calls of each function."""
        request = profiler_pb2.ExplainVariantRequest(
            variant_id=variant_id, function=function, partition_kind=partition_kind, node_id=node
        )
        response: profiler_pb2.ExplainVariantResponse = self._wire.call(
            self._stub.ExplainVariant, request, EXPLAIN_LIMIT_S
        )
        return response
