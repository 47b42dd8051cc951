"""A database as an earlier version left it."""

from alembic import command
from sqlalchemy import Connection

from projector.storage import migrate


async def migrate_to(url: str, revision: str) -> None:
    """Apply the migrations up to one of them."""

    def run(connection: Connection) -> None:
        command.upgrade(migrate.config(connection), revision)

    async with migrate.engine_connection(url) as connection:
        await connection.run_sync(run)
