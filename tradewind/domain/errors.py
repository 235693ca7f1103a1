"""The one error tree. Every refusal has a reason of the closed list, a message that says what to do next, and figures.

    TradewindError
    ├── InvalidField, BadModelSource, UnsupportedModel, ContextExceeded      the caller's mistake
    ├── NotFound, AlreadyExists, GenerationConflict, InUse …                 the state does not allow it
    ├── Overloaded, NoSpace, DatabaseUnavailable, NoReadyReplica …           try again, or give us more
    └── Internal                                                            our fault

Reasons are names of `tradewind.v1.ErrorReason` without their prefix; STATUS maps each to its one gRPC status code.
Pure: no gRPC here, `tradewind.rpc.errors` translates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final


class TradewindError(Exception):
    """Something refused or failed, for a reason of the closed list.

    Attributes:
        message: what happened and what to do next, for a person.
        metadata: names and figures that belong to the reason; all strings.
    """

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})


class Internal(TradewindError):
    """A fault of ours; the log holds the details."""


class InvalidField(TradewindError):
    """A field is missing, malformed or out of range."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}", {"field": field})


class DeadlineRequired(TradewindError):
    """The call came without a deadline."""

    reason = "DEADLINE_REQUIRED"


class BadModelSource(TradewindError):
    """Source files are missing, truncated or unreadable."""

    reason = "BAD_MODEL_SOURCE"


class UnsupportedModel(TradewindError):
    """The architecture or format is not supported."""

    reason = "UNSUPPORTED_MODEL"


class UntrustedSource(UnsupportedModel):
    """Reading the source would run code that came with it, and nobody said that it may."""


class NotFound(TradewindError):
    """No such resource."""

    reason = "NOT_FOUND"

    def __init__(self, kind: str, name: str, hint: str = "") -> None:
        super().__init__(f"no {kind} named {name!r}" + (f"; {hint}" if hint else ""), {"kind": kind, "name": name})


class AlreadyExists(TradewindError):
    """The name is taken by something else."""

    reason = "ALREADY_EXISTS"


class GenerationConflict(TradewindError):
    """Another writer was first."""

    reason = "GENERATION_CONFLICT"


class RequestIdReused(TradewindError):
    """A request_id was used before with another content."""

    reason = "REQUEST_ID_REUSED"


class SloInfeasible(TradewindError):
    """No blueprint meets the SLO."""

    reason = "SLO_INFEASIBLE"


class NoSpace(TradewindError):
    """No disk space is left."""

    reason = "NO_SPACE"


class DeviceFault(TradewindError):
    """The device is taken out; another one must do."""

    reason = "DEVICE_FAULT"


class Overloaded(TradewindError):
    """A bounded queue is full."""

    reason = "OVERLOADED"


class MessageTooLarge(TradewindError):
    """A message is larger than the limit."""

    reason = "MESSAGE_TOO_LARGE"


class DatabaseUnavailable(TradewindError):
    """PostgreSQL does not answer."""

    reason = "DATABASE_UNAVAILABLE"


class LiveStateUnavailable(TradewindError):
    """Redis does not answer."""

    reason = "LIVE_STATE_UNAVAILABLE"


class NoReadyReplica(TradewindError):
    """No replica is ready for the deployment."""

    reason = "NO_READY_REPLICA"


class ServiceUnavailable(TradewindError):
    """Another Tradewind service does not answer."""

    reason = "SERVICE_UNAVAILABLE"


class ContextExceeded(TradewindError):
    """Prompt and wanted output do not fit the context."""

    reason = "CONTEXT_EXCEEDED"


class ArtifactRejected(TradewindError):
    """Digest or signature of an artifact does not match."""

    reason = "ARTIFACT_REJECTED"


class VariantRejected(TradewindError):
    """The variant's quality record does not let it serve."""

    reason = "VARIANT_REJECTED"


class WrongAnswer(TradewindError):
    """On this device the variant answers otherwise than the source framework, or than its own admitted run."""

    reason = "WRONG_ANSWER"


class StaleGeneration(TradewindError):
    """A generation older than the newest seen."""

    reason = "STALE_GENERATION"


class ProfileMissing(TradewindError):
    """Profiles are missing for what was asked."""

    reason = "PROFILE_MISSING"


class CompileFailed(TradewindError):
    """The compiler crashed or refused a recipe."""

    reason = "COMPILE_FAILED"


class JobTimeout(TradewindError):
    """A job ran past its time limit."""

    reason = "JOB_TIMEOUT"


class JobOutOfMemory(TradewindError):
    """A job ran past its memory limit."""

    reason = "JOB_OUT_OF_MEMORY"


class Cancelled(TradewindError):
    """The work was cancelled on request."""

    reason = "CANCELLED"


class ReplicaLost(TradewindError):
    """The replica died while it worked on the request."""

    reason = "REPLICA_LOST"


class NotLeader(TradewindError):
    """This orchestrator follows another, which must be asked; metadata names it when it is known."""

    reason = "NOT_LEADER"

    def __init__(self, leader: str) -> None:
        who = f"the leader is {leader}" if leader else "no leader is known yet; retry in a few seconds"
        super().__init__(f"this orchestrator does not lead; {who}", {"leader": leader})


class InUse(TradewindError):
    """The resource is in use."""

    reason = "IN_USE"


class NotImplementedYet(TradewindError):
    """The method is in the contract and not in this server."""

    reason = "NOT_IMPLEMENTED"


# Reason → name of its gRPC status code. The only such table.
STATUS: Final[dict[str, str]] = {
    "INVALID_FIELD": "INVALID_ARGUMENT",
    "DEADLINE_REQUIRED": "INVALID_ARGUMENT",
    "BAD_MODEL_SOURCE": "INVALID_ARGUMENT",
    "UNSUPPORTED_MODEL": "FAILED_PRECONDITION",
    "DEVICE_FAULT": "UNAVAILABLE",
    "NOT_FOUND": "NOT_FOUND",
    "ALREADY_EXISTS": "ALREADY_EXISTS",
    "GENERATION_CONFLICT": "ABORTED",
    "REQUEST_ID_REUSED": "INVALID_ARGUMENT",
    "SLO_INFEASIBLE": "FAILED_PRECONDITION",
    "NO_SPACE": "RESOURCE_EXHAUSTED",
    "OVERLOADED": "RESOURCE_EXHAUSTED",
    "MESSAGE_TOO_LARGE": "RESOURCE_EXHAUSTED",
    "DATABASE_UNAVAILABLE": "UNAVAILABLE",
    "LIVE_STATE_UNAVAILABLE": "UNAVAILABLE",
    "NO_READY_REPLICA": "UNAVAILABLE",
    "SERVICE_UNAVAILABLE": "UNAVAILABLE",
    "CONTEXT_EXCEEDED": "OUT_OF_RANGE",
    "ARTIFACT_REJECTED": "DATA_LOSS",
    "VARIANT_REJECTED": "FAILED_PRECONDITION",
    "WRONG_ANSWER": "FAILED_PRECONDITION",
    "STALE_GENERATION": "FAILED_PRECONDITION",
    "PROFILE_MISSING": "FAILED_PRECONDITION",
    "COMPILE_FAILED": "INTERNAL",
    "JOB_TIMEOUT": "DEADLINE_EXCEEDED",
    "JOB_OUT_OF_MEMORY": "RESOURCE_EXHAUSTED",
    "CANCELLED": "CANCELLED",
    "REPLICA_LOST": "UNAVAILABLE",
    "INTERNAL": "INTERNAL",
    "IN_USE": "FAILED_PRECONDITION",
    "NOT_IMPLEMENTED": "UNIMPLEMENTED",
    "NOT_LEADER": "UNAVAILABLE",
}


class RemoteError(TradewindError):
    """An error that another service answered with, reason and metadata kept.

    Attributes:
        remote_reason: the reason it gave; "INTERNAL" when it gave none.
        status: name of the gRPC status code it came with.
    """

    def __init__(
        self, remote_reason: str, status: str, message: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, metadata)
        self.remote_reason = remote_reason
        self.status = status


def reason_of(error: TradewindError) -> str:
    """The reason an error carries, that of the far end for a RemoteError."""
    return error.remote_reason if isinstance(error, RemoteError) else error.reason
