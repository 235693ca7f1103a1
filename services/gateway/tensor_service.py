"""Asks tensor models: finds the deployment, knows what its model takes, dispatches. Knows no interface."""

from __future__ import annotations

import time
from collections.abc import Sequence

from services.gateway.metrics import Finished, GatewayMetrics
from services.gateway.routing.deadline import Deadline
from services.gateway.routing.dispatcher import Dispatcher
from services.gateway.routing.table import RouteTable
from services.gateway.text.library import ModelLibrary
from tradewind.domain.errors import InvalidField, TradewindError, reason_of
from tradewind.domain.routes import ReplicaRoute
from tradewind.v1 import compiler_pb2, inference_pb2


class TensorService:
    """Asks tensor models.

    Args:
        table: which deployments there are.
        library: facts of models.
        dispatcher: brings tensors to replicas.
        metrics: told of each request.
    """

    def __init__(
        self, table: RouteTable, library: ModelLibrary, dispatcher: Dispatcher, metrics: GatewayMetrics
    ) -> None:
        self._table, self._library, self._dispatcher, self._metrics = table, library, dispatcher, metrics

    async def model_of(self, deployment: str) -> compiler_pb2.Model:
        """What a deployment's model takes and gives.

        Raises:
            NotFound: no such deployment.
        """
        return await self._library.facts(self._table.find(deployment).model_id)

    async def infer(
        self, deployment: str, inputs: Sequence[inference_pb2.Tensor], interface: str, deadline: Deadline
    ) -> tuple[ReplicaRoute, inference_pb2.InferResponse]:
        """The replica that answered, and its answer.

        Raises:
            TradewindError: whatever keeps it from answering.
        """
        began_s = time.monotonic()
        self._metrics.begun(deployment)
        code = "OK"
        try:
            model = await self.model_of(deployment)
            if model.task != compiler_pb2.MODEL_TASK_INFER:
                raise InvalidField("deployment", f"{deployment!r} generates text; ask it by Generate or text_input")
            replica, answer = await self._dispatcher.infer(deployment, inputs, deadline)
        except TradewindError as error:
            code = reason_of(error)
            raise
        except BaseException:
            code = "CANCELLED"
            raise
        finally:
            self._metrics.ended(interface, deployment, code)
        took_s = time.monotonic() - began_s
        self._metrics.finished(Finished(deployment, replica.variant_name, answer.usage, took_s, None, took_s))
        return replica, answer
