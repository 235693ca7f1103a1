"""Where a variant's time goes: has a node time its dispatches, and says what they compute and move."""

from __future__ import annotations

from typing import Any, Final

from services.profiler.core.campaign import choose_nodes, choose_variants, runs_on
from services.profiler.core.roofline import work_of
from services.profiler.ports import Catalogue, Fleet
from tradewind.domain.errors import InvalidField, ServiceUnavailable
from tradewind.rpc.client import open_channel
from tradewind.rpc.errors import translated
from tradewind.v1 import compiler_pb2, node_pb2, node_pb2_grpc, orchestrator_pb2, profiler_pb2

# Every function of a large model, some calls each, on a slow machine.
TIME_LIMIT_S: Final = 1_200.0


class Explainer:
    """Explains variants.

    Args:
        catalogue: knows variants.
        fleet: knows nodes.
    """

    def __init__(self, catalogue: Catalogue, fleet: Fleet) -> None:
        self._catalogue, self._fleet = catalogue, fleet

    async def explain(self, request: profiler_pb2.ExplainVariantRequest) -> profiler_pb2.ExplainVariantResponse:
        """See the contract.

        Raises:
            VariantRejected: the variant may not run.
            ServiceUnavailable: no node runs it, or the node went away.
        """
        if not request.variant_id:
            raise InvalidField("variant_id", "a variant is needed; `tradewind variant list` shows them")
        named = await self._catalogue.variant(request.variant_id)
        (variant,) = choose_variants(named.model_id, [named], [named.variant_id])
        nodes = choose_nodes(await self._fleet.nodes(), [request.node_id] if request.node_id else [])
        node, device = _place(variant, nodes)
        kind = request.partition_kind or (device.partition_kinds[-1] if device.partition_kinds else "")
        sent = await self._time(node, device, variant, kind, request.function)
        return profiler_pb2.ExplainVariantResponse(
            dispatches=[_with_work(cost) for cost in sent.dispatches],
            node_id=node.report.node_id,
            device_class=device.device_class,
            partition_kind=kind,
        )

    async def _time(
        self,
        node: orchestrator_pb2.Node,
        device: node_pb2.Device,
        variant: compiler_pb2.Variant,
        kind: str,
        function: str,
    ) -> node_pb2.TimeDispatchesResponse:
        channel = open_channel(node.report.address)
        stub: Any = node_pb2_grpc.NodeAgentServiceStub(channel)
        request = node_pb2.TimeDispatchesRequest(
            variant_id=variant.variant_id,
            manifest=variant.manifest,
            device_id=device.device_id,
            partition_kind=kind,
            function=function,
        )
        try:
            with translated(f"node agent of {node.report.node_id} at {node.report.address}"):
                sent: node_pb2.TimeDispatchesResponse = await stub.TimeDispatches(request, timeout=TIME_LIMIT_S)
                return sent
        finally:
            await channel.close(None)


def _place(
    variant: compiler_pb2.Variant, nodes: list[orchestrator_pb2.Node]
) -> tuple[orchestrator_pb2.Node, node_pb2.Device]:
    for node in nodes:
        for device in node.report.devices:
            if runs_on(variant, device):
                return node, device
    raise ServiceUnavailable(
        f"no active node runs {variant.target}; build a variant for another target, or start a node agent on such a "
        "machine",
        {"service": "node-agent"},
    )


def _with_work(cost: profiler_pb2.DispatchCost) -> profiler_pb2.DispatchCost:
    work = work_of(cost.name)
    cost.operations, cost.moved_bytes = work.operations * cost.count, work.moved_bytes * cost.count
    return cost
