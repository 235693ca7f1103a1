"""Operations on a real PostgreSQL: watched, cancelled, asked for twice, recovered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from tradewind.domain.errors import CompileFailed, DatabaseUnavailable, InvalidField, NotFound, RequestIdReused
from tradewind.rpc.operations import Operations, Progress
from tradewind.store.database import Database
from tradewind.v1 import common_pb2, operation_pb2

DONE, FAILED = operation_pb2.OPERATION_STATE_DONE, operation_pb2.OPERATION_STATE_FAILED
CANCELLED = operation_pb2.OPERATION_STATE_CANCELLED


@pytest.fixture
async def operations(database: Database) -> AsyncIterator[Operations]:
    operations = Operations("compiler", database, workers=1)
    yield operations
    await operations.close()


async def last(operations: Operations, operation_id: str) -> operation_pb2.Operation:
    async with asyncio.timeout(20):
        seen = [operation async for operation in operations.watch(operation_id)]
    assert [o.version for o in seen] == sorted(o.version for o in seen)
    return seen[-1]


async def test_work_is_watched_to_its_result(operations: Operations) -> None:
    async def work(progress: Progress) -> Sequence[str]:
        progress.update("half", 0.5)
        return ["made"]

    started = await operations.start("Build", "r1", "d", work)
    end = await last(operations, started.operation_id)
    assert (end.state, list(end.result_ids), end.progress) == (DONE, ["made"], 1.0)


async def test_the_same_request_is_one_job_and_another_content_is_refused(operations: Operations) -> None:
    runs: list[int] = []

    async def work(progress: Progress) -> Sequence[str]:
        runs.append(1)
        return []

    one, two = await asyncio.gather(
        operations.start("Build", "r1", "d", work), operations.start("Build", "r1", "d", work)
    )
    assert one.operation_id == two.operation_id
    await last(operations, one.operation_id)
    assert len(runs) == 1
    with pytest.raises(RequestIdReused):
        await operations.start("Build", "r1", "other", work)


async def test_a_refusal_of_the_work_is_kept_with_its_reason(operations: Operations) -> None:
    async def work(progress: Progress) -> Sequence[str]:
        raise CompileFailed("flag --x is unknown", {"flag": "--x"})

    end = await last(operations, (await operations.start("Build", "r1", "d", work)).operation_id)
    assert end.state == FAILED
    assert end.error.reason == common_pb2.ERROR_REASON_COMPILE_FAILED
    assert dict(end.error.metadata) == {"flag": "--x"}


async def test_cancelling_stops_the_work_also_while_it_waits(operations: Operations) -> None:
    running, stopped = asyncio.Event(), asyncio.Event()

    async def work(progress: Progress) -> Sequence[str]:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return []

    first = await operations.start("Build", "r1", "d", work)
    second = await operations.start("Build", "r2", "d", work)
    await asyncio.wait_for(running.wait(), 10)
    await operations.cancel(second.operation_id)
    assert (await last(operations, second.operation_id)).state == CANCELLED
    assert not stopped.is_set()
    await operations.cancel(first.operation_id)
    assert (await last(operations, first.operation_id)).state == CANCELLED
    assert stopped.is_set()


async def test_what_ran_when_the_service_died_reads_failed_after_restart(database: Database) -> None:
    async def work(progress: Progress) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    before = Operations("compiler", database, workers=1)
    started = await before.start("Build", "r1", "d", work)
    after = Operations("compiler", database, workers=1)
    await after.recover()
    assert (await after.get(started.operation_id)).state == FAILED
    await before.close()


async def test_bad_requests(operations: Operations) -> None:
    async def work(progress: Progress) -> Sequence[str]:
        return []

    with pytest.raises(InvalidField):
        await operations.start("Build", "", "d", work)
    with pytest.raises(NotFound):
        await operations.get("operations/none")


async def test_a_database_that_is_not_there_is_unavailable() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    await database.close()


async def test_migrating_twice_at_once_is_harmless(database_url: str) -> None:
    databases = [Database(database_url), Database(database_url)]
    await asyncio.gather(*(d.migrate() for d in databases))
    for database in databases:
        await database.ping()
        await database.close()
