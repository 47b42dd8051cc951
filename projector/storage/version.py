"""Whether the database has the tables of this version."""

from projector.errors import NotMigratedError
from projector.storage.connection import Connection

VERSION_TABLE = "projector_migration"
"""Not Alembic's default name: the database may have migrations of its own."""

MIGRATIONS = ("0001", "0002", "0003", "0004")
"""In order. A test compares them with `migrations/versions`: reading these takes Alembic, which is slow to import."""

NEWEST = MIGRATIONS[-1]


async def check(connection: Connection) -> None:
    """Check that the tables are those of this version.

    Raises:
        NotMigratedError: they are older, newer, or missing.
    """
    found = await migration(connection)
    if found != NEWEST:
        raise NotMigratedError(found=found, expected=NEWEST, newer=found is not None and found not in MIGRATIONS)


async def migration(connection: Connection) -> str | None:
    """Return the latest migration applied, or None."""
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", VERSION_TABLE):
        return None
    found: str | None = await connection.fetchval(f"SELECT version_num FROM {VERSION_TABLE}")
    return found
