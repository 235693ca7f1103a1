"""Long work behind an Operation: bounded, watchable, cancellable, kept in PostgreSQL, one for each request_id.

Progress lives in memory and its ends in the database: an operation that was under way when its service died reads
FAILED after the restart, and asking again with a new request_id starts it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from tradewind.domain.errors import (
    Cancelled,
    DatabaseUnavailable,
    Internal,
    NotFound,
    Overloaded,
    RequestIdReused,
    TradewindError,
)
from tradewind.rpc.errors import to_operation_error
from tradewind.store.database import Database
from tradewind.store.requests import check_request_id
from tradewind.store.tables import OperationRow
from tradewind.v1 import operation_pb2, operation_pb2_grpc

# Waiting operations beyond this are refused: a queue that long means minutes of waiting at the least.
MAX_QUEUED: Final = 64
# Finished operations kept in memory; older ones are read from the database.
MAX_REMEMBERED: Final = 256
# A watcher hears at the latest this often, which also shows it that the server lives.
WATCH_PERIOD_S: Final = 5.0

FINAL: Final = frozenset(
    {operation_pb2.OPERATION_STATE_DONE, operation_pb2.OPERATION_STATE_FAILED, operation_pb2.OPERATION_STATE_CANCELLED}
)
Work = Callable[["Progress"], Awaitable[Sequence[str]]]


class Progress:
    """Handed to the work so that it can say where it stands."""

    def __init__(self, job: _Job) -> None:
        self._job = job

    def update(self, stage: str, share: float) -> None:
        """Says the stage in a person's words and the share of the whole done, in [0, 1]; the share never falls."""
        operation = self._job.operation
        operation.stage = stage
        operation.progress = max(operation.progress, min(1.0, share))
        self._job.changed()


class _Job:
    """One operation in memory."""

    def __init__(self, operation: operation_pb2.Operation) -> None:
        self.operation = operation
        self.task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def changed(self) -> None:
        self.operation.version += 1
        self.operation.update_time.GetCurrentTime()
        self._news.set()
        self._news = asyncio.Event()

    async def wait(self, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._news.wait()


class Operations:
    """The operations of one service.

    Args:
        service: its name, for instance "compiler".
        database: where they are kept.
        workers: how many run at once.
    """

    def __init__(self, service: str, database: Database, workers: int) -> None:
        self._service, self._database = service, database
        self._places = asyncio.Semaphore(workers)
        self._jobs: dict[str, _Job] = {}
        self._log = structlog.get_logger("operations")

    async def recover(self) -> None:
        """Marks operations of an earlier life that never ended as FAILED. Called once at start."""
        async with self._database.session() as session:
            rows = (
                await session.scalars(
                    select(OperationRow).where(OperationRow.service == self._service, OperationRow.final.is_(False))
                )
            ).all()
            for row in rows:
                operation = operation_pb2.Operation.FromString(row.record)
                operation.state = operation_pb2.OPERATION_STATE_FAILED
                message = f"the {self._service} was restarted while this ran; start it again"
                operation.error.CopyFrom(to_operation_error(Internal(message)))
                row.record, row.final = operation.SerializeToString(), True

    async def start(self, kind: str, request_id: str, content_digest: str, work: Work) -> operation_pb2.Operation:
        """Starts work, or returns the operation that this request_id started before.

        Args:
            kind: what it does, for instance "ImportModel".
            request_id: of the caller.
            content_digest: of the request, see `tradewind.store.requests.content_digest`.
            work: does it; returns result ids; may raise TradewindError; is cancelled by asyncio cancellation.

        Raises:
            InvalidField: no request_id.
            RequestIdReused: the request_id came before with another content.
            Overloaded: too many wait already.
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        check_request_id(request_id)
        if (earlier := await self._earlier(request_id, content_digest)) is not None:
            return earlier
        queued = sum(j.operation.state == operation_pb2.OPERATION_STATE_QUEUED for j in self._jobs.values())
        if queued >= MAX_QUEUED:
            raise Overloaded(
                f"{queued} operations wait already; try again when some have ended", {"queued": str(queued)}
            )
        now = Timestamp()
        now.GetCurrentTime()
        operation = operation_pb2.Operation(
            operation_id=f"operations/{self._service}-{uuid.uuid4().hex}",
            kind=kind,
            state=operation_pb2.OPERATION_STATE_QUEUED,
            stage="waiting",
            create_time=now,
            update_time=now,
            version=1,
        )
        try:
            async with self._database.session() as session:
                session.add(
                    OperationRow(
                        operation_id=operation.operation_id,
                        service=self._service,
                        request_id=request_id,
                        content_digest=content_digest,
                        record=operation.SerializeToString(),
                    )
                )
        except IntegrityError:
            again = await self._earlier(request_id, content_digest)
            if again is None:
                raise
            return again
        job = _Job(operation)
        self._jobs[operation.operation_id] = job
        job.task = asyncio.create_task(self._run(job, work), name=operation.operation_id)
        self._forget_old()
        return _copy(operation)

    async def get(self, operation_id: str) -> operation_pb2.Operation:
        """The operation as it stands.

        Raises:
            NotFound: there is none.
        """
        if job := self._jobs.get(operation_id):
            return _copy(job.operation)
        async with self._database.session() as session:
            row = await session.get(OperationRow, operation_id)
        if row is None or row.service != self._service:
            raise NotFound("operation", operation_id, f"it may be another service's, this is the {self._service}")
        return operation_pb2.Operation.FromString(row.record)

    async def watch(self, operation_id: str) -> AsyncIterator[operation_pb2.Operation]:
        """The operation now and at each change, until it is final; also every `WATCH_PERIOD_S` unchanged."""
        seen = 0
        while True:
            job = self._jobs.get(operation_id)
            operation = await self.get(operation_id)
            yield operation
            if operation.state in FINAL or job is None:
                return
            seen = operation.version
            if job.operation.version == seen:
                await job.wait(WATCH_PERIOD_S)

    async def cancel(self, operation_id: str) -> operation_pb2.Operation:
        """Asks the work to stop. Idempotent."""
        operation = await self.get(operation_id)
        job = self._jobs.get(operation_id)
        if operation.state not in FINAL and job is not None and job.task is not None:
            job.task.cancel()
            job.operation.stage = "cancelling"
            job.changed()
        return await self.get(operation_id)

    async def close(self) -> None:
        """Cancels what runs and waits for its end."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None and not job.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def servicer(self) -> operation_pb2_grpc.OperationServiceServicer:
        """Serves these operations."""
        return _Servicer(self)

    async def _earlier(self, request_id: str, content_digest: str) -> operation_pb2.Operation | None:
        async with self._database.session() as session:
            row = (
                await session.scalars(
                    select(OperationRow).where(
                        OperationRow.service == self._service, OperationRow.request_id == request_id
                    )
                )
            ).first()
        if row is None:
            return None
        if row.content_digest != content_digest:
            raise RequestIdReused(f"request_id {request_id!r} came before with another content; take a new one")
        return await self.get(row.operation_id)

    async def _run(self, job: _Job, work: Work) -> None:
        operation = job.operation
        try:
            async with self._places:
                operation.state = operation_pb2.OPERATION_STATE_RUNNING
                job.changed()
                results = await work(Progress(job))
            operation.result_ids.extend(results)
            operation.state, operation.progress = operation_pb2.OPERATION_STATE_DONE, 1.0
        except asyncio.CancelledError:
            operation.state = operation_pb2.OPERATION_STATE_CANCELLED
            operation.error.CopyFrom(to_operation_error(Cancelled("cancelled on request")))
        except TradewindError as error:
            operation.state = operation_pb2.OPERATION_STATE_FAILED
            operation.error.CopyFrom(to_operation_error(error))
        except Exception as error:  # noqa: BLE001  the last frame of a task: logged, and told to the caller
            incident = uuid.uuid4().hex[:12]
            self._log.error("operation failed by a fault of ours", incident=incident, exc_info=error)
            operation.state = operation_pb2.OPERATION_STATE_FAILED
            fault = Internal(f"a fault in the {self._service}, incident {incident}; its log has the details")
            operation.error.CopyFrom(to_operation_error(fault))
        await asyncio.shield(self._persist(job))
        job.changed()

    async def _persist(self, job: _Job) -> None:
        change = update(OperationRow).where(OperationRow.operation_id == job.operation.operation_id)
        try:
            async with self._database.session() as session:
                await session.execute(change.values(record=job.operation.SerializeToString(), final=True))
        except DatabaseUnavailable as error:
            # Memory still has it; after a restart `recover` calls it failed, which a caller can act on.
            self._log.warning("an operation's end could not be kept", error=error.message)

    def _forget_old(self) -> None:
        final = [name for name, job in self._jobs.items() if job.operation.state in FINAL]
        for name in final[: max(0, len(final) - MAX_REMEMBERED)]:
            del self._jobs[name]


class _Servicer(operation_pb2_grpc.OperationServiceServicer):
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def GetOperation(
        self, request: operation_pb2.GetOperationRequest, context: Any
    ) -> operation_pb2.GetOperationResponse:
        return operation_pb2.GetOperationResponse(operation=await self._operations.get(request.operation_id))

    async def WatchOperation(
        self, request: operation_pb2.WatchOperationRequest, context: Any
    ) -> AsyncIterator[operation_pb2.WatchOperationResponse]:
        async for operation in self._operations.watch(request.operation_id):
            yield operation_pb2.WatchOperationResponse(operation=operation)

    async def CancelOperation(
        self, request: operation_pb2.CancelOperationRequest, context: Any
    ) -> operation_pb2.CancelOperationResponse:
        return operation_pb2.CancelOperationResponse(operation=await self._operations.cancel(request.operation_id))


def _copy(operation: operation_pb2.Operation) -> operation_pb2.Operation:
    copy = operation_pb2.Operation()
    copy.CopyFrom(operation)
    return copy
