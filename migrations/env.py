"""Runs migrations: one process at a time per database, each migration in its own transaction."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text

from projector.storage.migrate import engine_connection
from projector.storage.tables import metadata
from projector.storage.version import VERSION_TABLE

# An arbitrary number, the same in every version.
ADVISORY_LOCK = 4_150_913_071


def run(connection: Connection) -> None:
    """Migrate under the advisory lock."""
    connection.execute(text("SET statement_timeout = '10min'"))
    connection.execute(text("SET lock_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": ADVISORY_LOCK})
    # A migration that waits for a lock makes later queries wait behind it.
    connection.execute(text("SET lock_timeout = '10s'"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_run() -> None:
    """Migrate the database that the environment names, for Alembic's command line."""
    async with engine_connection(os.environ["PROJECTOR_DATABASE_URL"]) as connection:
        await connection.run_sync(run)
        await connection.commit()


given = context.config.attributes.get("connection")
if given is None:
    asyncio.run(connect_and_run())
else:
    run(given)
