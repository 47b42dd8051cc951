"""Migrations. This is the only module that needs Alembic and an engine of SQLAlchemy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from alembic import command
from alembic.config import Config
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from projector import resources
from projector.errors import DatabaseRefusedError, NotMigratedError
from projector.storage.connection import connect
from projector.storage.failures import translated
from projector.storage.version import NEWEST, READ_WRITE


async def upgrade(url: str) -> None:
    """Apply the migrations that are missing.

    Raises:
        NotMigratedError: the tables are newer.
        DatabaseRefusedError: the database is not encoded in UTF-8.
    """
    async with engine_connection(url) as connection:
        await _check_encoding(connection)
        try:
            await connection.run_sync(lambda sync: command.upgrade(config(sync), "head"))
        except CommandError as error:
            if isinstance(error.__cause__, ResolutionError):
                raise NotMigratedError(found=error.__cause__.argument, expected=NEWEST, newer=True) from error
            raise


async def _check_encoding(connection: AsyncConnection) -> None:
    """Refuse a database that cannot store every text of an event."""
    encoding = (await connection.execute(text("SHOW server_encoding"))).scalar_one()
    await connection.rollback()
    if encoding != "UTF8":
        raise DatabaseRefusedError(
            f"the database is encoded in {encoding}, which cannot store every endpoint id; "
            "create another one with `CREATE DATABASE … ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0`, "
            "and correct PROJECTOR_DATABASE_URL"
        )


def config(connection: Connection) -> Config:
    """Return the configuration with which Alembic's commands use a connection."""
    found = Config()
    found.set_main_option("script_location", str(resources.folder("migrations")).replace("%", "%%"))
    found.attributes["connection"] = connection
    return found


@asynccontextmanager
async def engine_connection(url: str) -> AsyncIterator[AsyncConnection]:
    """Open a SQLAlchemy connection for the length of a block, which has to commit."""
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect(url, purpose="migrations", settings=READ_WRITE),
        poolclass=NullPool,
    )
    try:
        with translated():
            try:
                async with engine.connect() as connection:
                    yield connection
            except DBAPIError as error:
                driver_error = error.orig and error.orig.__cause__
                raise driver_error or error from error
    finally:
        await engine.dispose()
