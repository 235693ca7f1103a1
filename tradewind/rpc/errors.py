"""Errors across the wire: TradewindError ⇄ gRPC status with google.rpc.ErrorInfo. The one place where both meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, cast

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tradewind.domain.errors import STATUS, MessageTooLarge, RemoteError, ServiceUnavailable, TradewindError, reason_of
from tradewind.v1 import common_pb2, operation_pb2

DOMAIN: Final = "tradewind.v1"
_CODES: Final = {code.name: code for code in grpc.StatusCode}


def status_of(error: TradewindError) -> grpc.StatusCode:
    """The gRPC status code an error travels with."""
    name = error.status if isinstance(error, RemoteError) else STATUS[error.reason]
    return _CODES[name]


def to_status(error: TradewindError) -> grpc.Status:
    """What a server aborts with: code, message, ErrorInfo."""
    info = error_details_pb2.ErrorInfo(reason=reason_of(error), domain=DOMAIN, metadata=error.metadata)
    detail = any_pb2.Any()
    detail.Pack(info)
    code = status_of(error).value[0]
    return rpc_status.to_status(status_pb2.Status(code=code, message=error.message, details=[detail]))


def from_rpc_error(error: grpc.aio.AioRpcError, service: str) -> TradewindError:
    """What a failed call of a service means.

    A status without our ErrorInfo comes from gRPC itself: UNAVAILABLE and DEADLINE_EXCEEDED become ServiceUnavailable,
    RESOURCE_EXHAUSTED (a message over the limit) MessageTooLarge, everything else a RemoteError with reason INTERNAL.
    """
    code = error.code()
    message = error.details() or code.name
    status = rpc_status.from_call(cast(grpc.Call, error))
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return RemoteError(info.reason, code.name, message, dict(info.metadata))
    if code is grpc.StatusCode.UNAVAILABLE:
        return ServiceUnavailable(f"the {service} does not answer ({message})", {"service": service})
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServiceUnavailable(f"the {service} did not answer in time", {"service": service})
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return MessageTooLarge(f"{service}: {message}")
    return RemoteError("INTERNAL", code.name, f"{service}: {message}")


@contextmanager
def translated(service: str) -> Iterator[None]:
    """Turns AioRpcError of calls inside into TradewindError.

    Args:
        service: who is called, for messages, for instance "compiler".
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, service) from error


def to_operation_error(error: TradewindError) -> operation_pb2.OperationError:
    """What a failed operation carries: the same words that a failed call would."""
    return operation_pb2.OperationError(
        code=status_of(error).value[0],
        reason=common_pb2.ErrorReason.Value(f"ERROR_REASON_{reason_of(error)}"),
        message=error.message,
        metadata=error.metadata,
    )


def from_operation_error(error: operation_pb2.OperationError) -> RemoteError:
    """The error that a failed operation carries."""
    name = common_pb2.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
    code = next((c.name for c in grpc.StatusCode if c.value[0] == error.code), "UNKNOWN")
    return RemoteError(name, code, error.message, dict(error.metadata))
