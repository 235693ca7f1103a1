"""A follower reads everything again only when something was written: the mark changes with every write, else never."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.departed import Gone
from services.orchestrator.lease import Lease
from services.orchestrator.records import (
    Records,
    add_deployment,
    change_deployment,
    commit_blueprint,
    forget_deployments,
    keep_gone,
    mark_deleting,
    set_budget,
    set_draining,
)
from tradewind.store.database import Database
from tradewind.v1 import orchestrator_pb2

SPEC = orchestrator_pb2.DeploymentSpec(model="m")
WRITES: tuple[Callable[[AsyncSession], Awaitable[object]], ...] = (
    lambda s: add_deployment(s, "d1", "chat", SPEC),
    lambda s: change_deployment(s, "d1", 1, SPEC),
    lambda s: add_deployment(s, "d2", "code", SPEC),
    lambda s: mark_deleting(s, "d2"),
    lambda s: forget_deployments(s, ["d2"]),
    lambda s: commit_blueprint(s, orchestrator_pb2.Blueprint(blueprint_id="b1", generation=1)),
    lambda s: set_draining(s, "n1", True),
    lambda s: set_draining(s, "n1", False),
    lambda s: set_budget(s, "site", 5_000),
    lambda s: set_budget(s, "node/n1", 4_000),
    lambda s: set_budget(s, "site", 6_000),
    lambda s: set_budget(s, "node/n1", 3_000),
    lambda s: keep_gone(s, [Gone("n1", 1e9, b"")]),
    lambda s: keep_gone(s, [Gone("n1", 1e9 + 0.5, b"")]),
    lambda s: keep_gone(s, []),
)


async def test_each_write_changes_the_mark_and_nothing_else_does(database_url: str) -> None:
    database = Database(database_url)
    await database.migrate()
    records = Records(database, Lease(database, "a:1"))
    mark = await records.mark()
    for number, write in enumerate(WRITES):
        async with database.session() as session:
            await write(session)
        after = await records.mark()
        assert after != mark, number
        mark = await records.mark()
        assert mark == after, number
    await database.close()
