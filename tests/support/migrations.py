"""A database as an earlier version left it."""

from alembic import command
from sqlalchemy import Connection

from projector.storage import migrate
from projector.storage.connection import engine_connection


async def migrate_to(url: str, revision: str) -> None:
    """Apply the migrations up to one of them."""

    def run(connection: Connection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    async with engine_connection(url, purpose="test") as connection:
        await connection.run_sync(run)
