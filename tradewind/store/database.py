"""PostgreSQL: sessions that turn a lost server into DatabaseUnavailable, and migrations at start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import alembic.command
import alembic.config
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from tradewind.domain.errors import DatabaseUnavailable

# Connections a service keeps; five services stay far below PostgreSQL's default of 100.
POOL_SIZE: Final = 5
# A caller waits this long for a connection or an answer before it hears UNAVAILABLE.
WAIT_S: Final = 5
STATEMENT_TIMEOUT_MS: Final = 15_000
# Advisory lock that lets one service at a time migrate.
MIGRATION_LOCK: Final = 7_431_001


class Database:
    """The metadata database.

    Args:
        url: "postgresql://user@host:port/name" or with "?host=/socket/folder".
    """

    def __init__(self, url: str) -> None:
        self.url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        self._engine = create_async_engine(
            self.url,
            pool_size=POOL_SIZE,
            max_overflow=POOL_SIZE,
            pool_timeout=WAIT_S,
            pool_pre_ping=True,
            connect_args={"connect_timeout": WAIT_S, "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS}"},
        )
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A transaction: committed at the end, rolled back on any error.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        try:
            async with self._sessions() as session, session.begin():
                yield session
        except (OperationalError, InterfaceError, PoolTimeout, OSError) as error:
            raise DatabaseUnavailable(f"PostgreSQL does not answer: {_first_line(error)}; retry later") from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise DatabaseUnavailable(f"PostgreSQL went away: {_first_line(error)}; retry later") from error
            raise

    async def ping(self) -> None:
        """Returns when PostgreSQL answers.

        Raises:
            DatabaseUnavailable: it does not.
        """
        async with self.session() as session:
            await session.execute(text("select 1"))

    async def migrate(self) -> None:
        """Brings the schema to the newest version; services that start together do it one at a time. Idempotent.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        async with self.session() as session:
            await session.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            await asyncio.to_thread(alembic.command.upgrade, migration_config(self.url), "head")

    async def close(self) -> None:
        """Closes all connections."""
        await self._engine.dispose()


def migration_config(url: str) -> alembic.config.Config:
    """Alembic's configuration for the migrations of this package."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
