"""The command line, with the servers of the test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.database import Database
from tests.support.fixtures import Query


@pytest.fixture
async def anywhere(tmp_path: Path) -> AsyncIterator[CommandLine]:
    """The command line, without any settings."""
    command_line = CommandLine(tmp_path)
    yield command_line
    for running in command_line.started:
        await running.kill()


@pytest.fixture
def projector(anywhere: CommandLine, nats_url: str, empty_database_url: str) -> CommandLine:
    """The command line, with an empty broker and an empty database."""
    anywhere.environment |= {"PROJECTOR_NATS_URL": nats_url, "PROJECTOR_DATABASE_URL": empty_database_url}
    return anywhere


@pytest.fixture
def prepared(anywhere: CommandLine, nats_url: str, database_url: str, stream: str) -> CommandLine:
    """The command line, with a broker and a database as `projector init` leaves them."""
    anywhere.environment |= {
        "PROJECTOR_NATS_URL": nats_url,
        "PROJECTOR_DATABASE_URL": database_url,
        "PROJECTOR_STREAM": stream,
    }
    return anywhere


@pytest.fixture
def database(database_url: str, query: Query) -> Database:
    return Database(database_url, query)


@pytest.fixture
def other_database(other_database_url: str, query: Query) -> Database:
    return Database(other_database_url, query)
