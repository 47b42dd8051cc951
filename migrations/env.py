"""How migrations run: one at a time in the whole database, each in a transaction of its own."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text

from projector.storage.connection import engine_connection
from projector.storage.migrate import VERSION_TABLE
from projector.storage.tables import metadata

# An arbitrary number that every version must share.
ADVISORY_LOCK = 4_150_913_071


def run(connection: Connection) -> None:
    """Migrate, while nobody else does."""
    # Whoever cannot have a table at once must not make everybody queue behind the migration.
    connection.execute(text("SET lock_timeout = '10s'"))
    connection.execute(text("SET statement_timeout = '10min'"))
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": ADVISORY_LOCK})
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
    """Migrate the database that the environment names: the way of Alembic's own command line."""
    async with engine_connection(os.environ["PROJECTOR_DATABASE_URL"], purpose="migrations") as connection:
        await connection.run_sync(run)
        await connection.commit()


given = context.config.attributes.get("connection")
if given is None:
    asyncio.run(connect_and_run())
else:
    run(given)
