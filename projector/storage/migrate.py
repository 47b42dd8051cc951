"""Migrations, and whether the database has them."""

from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Connection

from projector import resources
from projector.errors import NotMigratedError
from projector.storage.connection import engine_connection

VERSION_TABLE = "projector_migration"
"""Not Alembic's usual name: the database may have migrations of its own."""

MIGRATIONS = resources.folder("migrations")


async def upgrade(url: str) -> None:
    """Bring the tables to the newest version; nothing happens where they are.

    Raises:
        NotMigratedError: they are newer.
        DatabaseUnavailableError, DatabaseRefusedError: as their names say.
    """

    def run(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            if isinstance(error.__cause__, ResolutionError):
                raise NotMigratedError(found=error.__cause__.argument, expected=newest(), newer=True) from error
            raise

    async with engine_connection(url, purpose="migrations") as connection:
        await connection.run_sync(run)


async def check(connection: Any) -> None:
    """Make sure that the tables are those of this version.

    Raises:
        NotMigratedError: they are older, newer, or not there.
    """
    found, wanted = await state(connection), newest()
    if found != wanted:
        raise NotMigratedError(found=found, expected=wanted, newer=found is not None and not _knows(found))


async def state(connection: Any) -> str | None:
    """Return the last migration that the database has, or None if it has none."""
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", VERSION_TABLE):
        return None
    found: str | None = await connection.fetchval(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a name of ours
    return found


def newest() -> str:
    """Return the last migration of this version."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def _knows(revision: str) -> bool:
    return any(revision == known.revision for known in ScriptDirectory.from_config(_config()).walk_revisions())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
