"""The leader's lease: one row in PostgreSQL. Its fencing number, not its time, is what protects against an old leader.

Time is the database's own, so that clocks of hosts do not matter. A holder that comes back under the same address takes
its lease again at once: of two processes on one address one is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradewind.domain.errors import StaleGeneration
from tradewind.store.database import Database
from tradewind.store.tables import LeaderRow

ROLE: Final = "orchestrator"
# A leader that is silent so long is followed by another: with `RENEW_S` two renewals may be lost, and with a look each
# second and a second for reading in, a take-over is done within ten seconds of a kill.
LEASE_S: Final = 6.0
# How often the lease's end is pushed forward.
RENEW_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads.

    Attributes:
        holder: address of the orchestrator; "" when nobody does.
    """

    holder: str
    fencing: int


class Lease:
    """Our hold on the lease. Every method may raise DatabaseUnavailable.

    Args:
        database: the metadata database.
        holder: "host:port" where this orchestrator answers.
    """

    def __init__(self, database: Database, holder: str) -> None:
        self._database, self.holder = database, holder
        self.fencing = 0

    async def take(self) -> bool:
        """Becomes the leader if nobody is: the fencing number grows, an older leader's commits fail from now on."""
        ours = {"holder": self.holder, "expires_at": func.clock_timestamp() + timedelta(seconds=LEASE_S)}
        row = insert(LeaderRow).values(role=ROLE, fencing=1, **ours)
        free = or_(LeaderRow.expires_at < func.clock_timestamp(), LeaderRow.holder == self.holder)
        statement = row.on_conflict_do_update(
            index_elements=["role"], set_={**ours, "fencing": LeaderRow.fencing + 1}, where=free
        ).returning(LeaderRow.fencing)
        async with self._database.session() as session:
            taken = (await session.execute(statement)).scalar_one_or_none()
        if taken is None:
            return False
        self.fencing = taken
        return True

    async def renew(self) -> None:
        """Pushes the end forward.

        Raises:
            StaleGeneration: another orchestrator took over.
        """
        later = func.clock_timestamp() + timedelta(seconds=LEASE_S)
        async with self._database.session() as session:
            done: Any = await session.execute(update(LeaderRow).where(self._ours()).values(expires_at=later))
            if done.rowcount != 1:
                raise self.lost((await _row(session)).fencing)

    async def release(self) -> None:
        """Gives the lease back at an orderly stop, so that another takes over at once."""
        async with self._database.session() as session:
            await session.execute(update(LeaderRow).where(self._ours()).values(expires_at=func.clock_timestamp()))

    async def leader(self) -> Leader:
        """Who leads; a lease that has run out is nobody's."""
        async with self._database.session() as session:
            return await _row(session)

    async def require(self, session: AsyncSession) -> None:
        """Holds the lease for a transaction: a take-over waits until it is over.

        Raises:
            StaleGeneration: another orchestrator took over.
        """
        wanted = select(LeaderRow.fencing).where(LeaderRow.role == ROLE).with_for_update(read=True)
        newest = (await session.execute(wanted)).scalar_one_or_none()
        if newest != self.fencing:
            raise self.lost(newest or 0)

    def lost(self, newest: int) -> StaleGeneration:
        """The error of a leader that is none any more."""
        return StaleGeneration(
            f"another orchestrator leads (fencing number {newest}, ours is {self.fencing}); ask that one",
            {"expected": str(self.fencing), "actual": str(newest)},
        )

    def _ours(self) -> Any:
        return and_(LeaderRow.role == ROLE, LeaderRow.fencing == self.fencing, LeaderRow.holder == self.holder)


async def _row(session: AsyncSession) -> Leader:
    live = LeaderRow.expires_at >= func.clock_timestamp()
    wanted = select(LeaderRow.holder, LeaderRow.fencing, live).where(LeaderRow.role == ROLE)
    found = (await session.execute(wanted)).one_or_none()
    return Leader(found[0] if found[2] else "", found[1]) if found else Leader("", 0)
