"""The orchestrator's rows in PostgreSQL. Every write that must hold together is one transaction of `Records.begin`."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.core.adaptation.adapt import Memory
from services.orchestrator.departed import Gone
from services.orchestrator.journal import KeptInputs, keep_inputs, newest_memory
from services.orchestrator.lease import Lease
from tradewind.domain.errors import AlreadyExists, GenerationConflict
from tradewind.store.database import Database
from tradewind.store.tables import (
    BlueprintRow,
    DecisionRow,
    DeploymentRow,
    GoneNodeRow,
    NodePolicyRow,
    PowerBudgetRow,
)
from tradewind.v1 import orchestrator_pb2


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """A deployment as stored."""

    deployment_id: str
    name: str
    generation: int
    deleting: bool
    spec: orchestrator_pb2.DeploymentSpec
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """Everything read at start."""

    deployments: tuple[DeploymentRecord, ...]
    blueprint: orchestrator_pb2.Blueprint
    draining: tuple[str, ...]
    budgets: tuple[tuple[str, int], ...]
    gone: tuple[Gone, ...]
    explanations: dict[str, orchestrator_pb2.Explanation]


# Compared as a whole; nothing is read from it.
Mark = tuple[Any, ...]


class Records:
    """Reads and writes; every method may raise DatabaseUnavailable.

    Args:
        database: the metadata database.
        lease: what lets us write.
    """

    def __init__(self, database: Database, lease: Lease) -> None:
        self._database, self._lease = database, lease

    @property
    def holder(self) -> str:
        """Where we answer."""
        return self._lease.holder

    @property
    def fencing(self) -> int:
        """Our fencing number, for targets."""
        return self._lease.fencing

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """A write transaction of the leader.

        Raises:
            StaleGeneration: another orchestrator took over.
        """
        async with self._database.session() as session:
            await self._lease.require(session)
            yield session

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A read transaction."""
        async with self._database.session() as session:
            yield session

    async def memory(self) -> tuple[Memory, float]:
        """What the last leader had learnt, as far as its last decision tells; see `newest_memory`."""
        async with self._database.session() as session:
            return await newest_memory(session)

    async def mark(self) -> Mark:
        """Where what `load` reads stands: in one small query, and another one after every change of it."""
        deployments = select(func.count(), func.max(DeploymentRow.updated_at), func.sum(DeploymentRow.generation))
        newest = select(
            select(func.max(BlueprintRow.generation)).scalar_subquery(),
            select(func.max(DecisionRow.sequence)).scalar_subquery(),
            select(_listed(NodePolicyRow.node_id)).where(NodePolicyRow.draining).scalar_subquery(),
            select(_listed(func.concat(PowerBudgetRow.scope, "=", PowerBudgetRow.limit_mw))).scalar_subquery(),
            select(_listed(func.concat(GoneNodeRow.node_id, "=", GoneNodeRow.last_seen_unix_s))).scalar_subquery(),
        )
        async with self._database.session() as session:
            return (*(await session.execute(deployments)).one(), *(await session.execute(newest)).one())

    async def load(self) -> Stored:
        """Everything needed to go on after a restart."""
        async with self._database.session() as session:
            deployments = (await session.execute(select(DeploymentRow).order_by(DeploymentRow.created_at))).scalars()
            newest = select(BlueprintRow).order_by(BlueprintRow.generation.desc()).limit(1)
            blueprint = (await session.execute(newest)).scalar_one_or_none()
            policies = (await session.execute(select(NodePolicyRow).where(NodePolicyRow.draining))).scalars()
            budgets = (await session.execute(select(PowerBudgetRow).order_by(PowerBudgetRow.scope))).scalars()
            gone = (await session.execute(select(GoneNodeRow).order_by(GoneNodeRow.node_id))).scalars()
            records = tuple(_record(row) for row in deployments)
            explanations = {}
            for record in records:
                kept = await newest_explanation(session, record.deployment_id)
                if kept is not None:
                    explanations[record.deployment_id] = kept
            return Stored(
                deployments=records,
                blueprint=orchestrator_pb2.Blueprint.FromString(blueprint.record)
                if blueprint
                else orchestrator_pb2.Blueprint(),
                draining=tuple(sorted(policy.node_id for policy in policies)),
                budgets=tuple((budget.scope, budget.limit_mw) for budget in budgets),
                gone=tuple(Gone(row.node_id, row.last_seen_unix_s, row.record) for row in gone),
                explanations=explanations,
            )


def _listed(column: Any) -> Any:
    return func.string_agg(column, aggregate_order_by(literal(" "), column))


async def add_deployment(
    session: AsyncSession, deployment_id: str, name: str, spec: orchestrator_pb2.DeploymentSpec
) -> DeploymentRecord:
    """Stores a new wish.

    Raises:
        AlreadyExists: the name is taken.
    """
    now = datetime.now(UTC)
    row = DeploymentRow(
        deployment_id=deployment_id,
        name=name,
        generation=1,
        spec=spec.SerializeToString(),
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    try:
        await session.flush()
    except IntegrityError as error:
        raise AlreadyExists(f"a deployment named {name!r} exists; choose another name or update it") from error
    return _record(row)


async def change_deployment(
    session: AsyncSession, deployment_id: str, generation: int, spec: orchestrator_pb2.DeploymentSpec
) -> DeploymentRecord:
    """Stores a changed wish, by compare-and-set on the generation it is based on.

    Raises:
        GenerationConflict: it is another by now.
    """
    row = await session.get(DeploymentRow, deployment_id, with_for_update=True)
    if row is None or row.deleting or row.generation != generation:
        raise conflict(generation, row.generation if row else 0)
    row.generation, row.spec, row.updated_at = generation + 1, spec.SerializeToString(), datetime.now(UTC)
    await session.flush()
    return _record(row)


def conflict(expected: int, actual: int) -> GenerationConflict:
    """The error of a writer who was not the first."""
    return GenerationConflict(
        f"the deployment is at generation {actual}, the change is based on {expected}; read it again and retry",
        {"expected": str(expected), "actual": str(actual)},
    )


async def mark_deleting(session: AsyncSession, deployment_id: str) -> None:
    """Notes that a deployment is on its way out."""
    changes = {"deleting": True, "updated_at": datetime.now(UTC)}
    await session.execute(update(DeploymentRow).where(DeploymentRow.deployment_id == deployment_id).values(**changes))


async def forget_deployments(session: AsyncSession, deployment_ids: Sequence[str]) -> None:
    """Removes deployments whose replicas have ended."""
    await session.execute(delete(DeploymentRow).where(DeploymentRow.deployment_id.in_(deployment_ids)))


async def commit_blueprint(session: AsyncSession, message: orchestrator_pb2.Blueprint) -> None:
    """Commits a blueprint by compare-and-set on its parent.

    Raises:
        GenerationConflict: its parent is not the newest any more.
    """
    newest = (await session.execute(select(func.max(BlueprintRow.generation)))).scalar_one() or 0
    if newest != message.generation - 1:
        raise GenerationConflict(
            f"the newest blueprint is generation {newest}, the plan is based on {message.generation - 1}; plan again",
            {"expected": str(message.generation - 1), "actual": str(newest)},
        )
    message.create_time.CopyFrom(timestamp(datetime.now(UTC)))
    session.add(
        BlueprintRow(
            blueprint_id=message.blueprint_id,
            generation=message.generation,
            parent_id=message.parent_id,
            record=message.SerializeToString(),
        )
    )
    try:
        await session.flush()
    except IntegrityError as error:
        raise GenerationConflict("another blueprint has the same parent; plan again", {}) from error


async def add_decision(
    session: AsyncSession,
    trigger: str,
    summary: str,
    blueprint: orchestrator_pb2.Blueprint | None,
    explanations: Sequence[orchestrator_pb2.Explanation],
    kept: KeptInputs | None = None,
) -> orchestrator_pb2.Decision:
    """Appends to the journal, with what the decision was made from."""
    now = datetime.now(UTC)
    decision = orchestrator_pb2.Decision(
        decision_id=uuid.uuid4().hex,
        create_time=timestamp(now),
        trigger=trigger,
        summary=summary,
        blueprint_id=blueprint.blueprint_id if blueprint else "",
        generation=blueprint.generation if blueprint else 0,
        explanations=explanations,
    )
    last = (await session.execute(select(func.max(DecisionRow.sequence)))).scalar_one() or 0
    ids = ",".join(e.deployment_id for e in explanations)
    session.add(
        DecisionRow(
            decision_id=decision.decision_id,
            sequence=last + 1,
            deployment_ids=f",{ids},",
            record=decision.SerializeToString(),
        )
    )
    await session.flush()
    if kept is not None:
        await keep_inputs(session, decision.decision_id, last + 1, kept)
    return decision


async def decisions(
    session: AsyncSession, deployment_id: str, before: int | None, count: int
) -> list[tuple[int, orchestrator_pb2.Decision]]:
    """Decisions with their sequence numbers, newest first."""
    statement = select(DecisionRow).order_by(DecisionRow.sequence.desc()).limit(count)
    if deployment_id:
        statement = statement.where(DecisionRow.deployment_ids.contains(f",{deployment_id},", autoescape=True))
    if before is not None:
        statement = statement.where(DecisionRow.sequence < before)
    rows = (await session.execute(statement)).scalars()
    return [(row.sequence, orchestrator_pb2.Decision.FromString(row.record)) for row in rows]


async def newest_explanation(session: AsyncSession, deployment_id: str) -> orchestrator_pb2.Explanation | None:
    """The explanation kept with the newest decision on a deployment."""
    for _, decision in await decisions(session, deployment_id, None, 1):
        return next((e for e in decision.explanations if e.deployment_id == deployment_id), None)
    return None


async def set_draining(session: AsyncSession, node_id: str, draining: bool) -> None:
    """Notes what people want of a node."""
    row = insert(NodePolicyRow).values(node_id=node_id, draining=draining)
    await session.execute(row.on_conflict_do_update(index_elements=["node_id"], set_={"draining": draining}))


async def keep_gone(session: AsyncSession, gone: Sequence[Gone]) -> None:
    """Keeps these nodes that are gone and no others."""
    await session.execute(delete(GoneNodeRow))
    session.add_all(GoneNodeRow(node_id=g.node_id, last_seen_unix_s=g.last_seen_unix_s, record=g.record) for g in gone)
    await session.flush()


async def set_budget(session: AsyncSession, scope: str, limit_mw: int) -> None:
    """Sets a limit of power; 0 takes it away."""
    if limit_mw == 0:
        await session.execute(delete(PowerBudgetRow).where(PowerBudgetRow.scope == scope))
        return
    row = insert(PowerBudgetRow).values(scope=scope, limit_mw=limit_mw)
    await session.execute(row.on_conflict_do_update(index_elements=["scope"], set_={"limit_mw": limit_mw}))


def timestamp(at: datetime) -> Timestamp:
    """A time as sent."""
    message = Timestamp()
    message.FromDatetime(at)
    return message


def _record(row: DeploymentRow) -> DeploymentRecord:
    spec = orchestrator_pb2.DeploymentSpec.FromString(row.spec)
    return DeploymentRecord(
        row.deployment_id, row.name, row.generation, bool(row.deleting), spec, row.created_at, row.updated_at
    )
