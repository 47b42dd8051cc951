"""Whether the database has the tables of this version."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from projector.errors import NotMigratedError
from projector.storage.connection import Connection, connect
from projector.storage.failures import translated

VERSION_TABLE = "projector_migration"
"""Not Alembic's default name: the database may have migrations of its own."""

MIGRATIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")
"""In order. Importing Alembic to read `migrations/versions` would be slow; a test compares the two."""

NEWEST = MIGRATIONS[-1]

READ_ONLY: Mapping[str, str] = {"default_transaction_read_only": "on", "row_security": "off"}
"""A policy must not hide rows: a count would be wrong."""
READ_WRITE: Mapping[str, str] = {"default_transaction_read_only": "off", "row_security": "off"}


@asynccontextmanager
async def opened(
    url: str, *, purpose: str = "report", settings: Mapping[str, str] = READ_ONLY
) -> AsyncIterator[Connection]:
    """Open a connection for the length of a block, and check the tables."""
    connection = await connect(url, purpose=purpose, settings=settings)
    try:
        with translated():
            await check(connection)
            yield connection
    finally:
        connection.terminate()


async def check(connection: Connection) -> None:
    """Check that the tables are those of this version; raises NotMigratedError."""
    found = await migration(connection)
    if found != NEWEST:
        raise NotMigratedError(found=found, expected=NEWEST, newer=found is not None and found not in MIGRATIONS)


async def migration(connection: Connection) -> str | None:
    """Return the latest migration applied, or None."""
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", VERSION_TABLE):
        return None
    found: str | None = await connection.fetchval(f"SELECT version_num FROM {VERSION_TABLE}")
    return found
