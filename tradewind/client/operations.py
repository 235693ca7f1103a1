"""Long work: watched to its end, through dropped streams and restarts of the service that runs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from tradewind.client.wire import Wire
from tradewind.domain.errors import InvalidField, ServiceUnavailable
from tradewind.rpc.errors import from_operation_error
from tradewind.v1 import operation_pb2, operation_pb2_grpc

# A watch stream is opened anew at least this often.
WATCH_LIMIT_S: Final = 600.0
# A service that is away for longer is given up; a restart of a service takes a few seconds.
AWAY_LIMIT_S: Final = 30.0
RETRY_PERIOD_S: Final = 0.5

FINAL: Final = frozenset(
    {operation_pb2.OPERATION_STATE_DONE, operation_pb2.OPERATION_STATE_FAILED, operation_pb2.OPERATION_STATE_CANCELLED}
)


class OperationsClient:
    """Operations of one service."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub: Any = operation_pb2_grpc.OperationServiceStub(wire.channel)

    def get(self, operation_id: str) -> operation_pb2.Operation:
        """The operation as it stands."""
        request = operation_pb2.GetOperationRequest(operation_id=operation_id)
        operation: operation_pb2.Operation = self._wire.call(self._stub.GetOperation, request).operation
        return operation

    def cancel(self, operation_id: str) -> operation_pb2.Operation:
        """Asks the work to stop. Idempotent."""
        request = operation_pb2.CancelOperationRequest(operation_id=operation_id)
        operation: operation_pb2.Operation = self._wire.call(self._stub.CancelOperation, request).operation
        return operation

    def watch(self, operation_id: str) -> Iterator[operation_pb2.Operation]:
        """The operation now and at each change, until it is final. Survives a dropped stream and a restart.

        Raises:
            ServiceUnavailable: the service was away for `AWAY_LIMIT_S`.
        """
        last_heard_s = time.monotonic()
        while True:
            try:
                for operation in self._stream(operation_id):
                    last_heard_s = time.monotonic()
                    yield operation
                    if operation.state in FINAL:
                        return
            except ServiceUnavailable:
                if time.monotonic() - last_heard_s > AWAY_LIMIT_S:
                    raise
            # The channel connects again by itself; this only keeps the loop from spinning meanwhile.
            threading.Event().wait(RETRY_PERIOD_S)

    def result(self, operation_id: str) -> operation_pb2.Operation:
        """Waits for the end.

        Raises:
            RemoteError: it failed or was cancelled, with the reason.
        """
        *_, last = self.watch(operation_id)
        return succeeded(last)

    def _stream(self, operation_id: str) -> Iterator[operation_pb2.Operation]:
        request = operation_pb2.WatchOperationRequest(operation_id=operation_id)
        with self._wire.errors():
            for message in self._stub.WatchOperation(request, timeout=WATCH_LIMIT_S):
                yield message.operation


def succeeded(operation: operation_pb2.Operation) -> operation_pb2.Operation:
    """A final operation that is DONE.

    Raises:
        RemoteError: it failed or was cancelled, with the reason it carries.
    """
    if operation.state != operation_pb2.OPERATION_STATE_DONE:
        raise from_operation_error(operation.error)
    return operation


def service_of(operation_id: str) -> str:
    """The service that runs an operation, as its id tells ("operations/compiler-…").

    Raises:
        InvalidField: it is no id of an operation.
    """
    service = operation_id.removeprefix("operations/").partition("-")[0]
    if service not in ("compiler", "profiler"):
        raise InvalidField("operation", f"{operation_id!r} is no operation; ids look like operations/compiler-1f…")
    return service
