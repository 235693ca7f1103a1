"""Alembic's entry: runs migrations on the URL that `tradewind.store.database.migration_config` gives."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine

from tradewind.store.tables import Base


def main() -> None:
    url = context.config.get_main_option("sqlalchemy.url")
    assert url is not None
    engine = create_engine(url)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


main()
