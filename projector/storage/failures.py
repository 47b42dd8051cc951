"""Translates errors of the driver into the three families."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from projector.errors import (
    DatabaseLoginError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    PoisonError,
    ProjectorError,
    one_line,
)

_POISON_CLASSES = {
    "22",  # data exception
    "23",  # integrity constraint violation
    "44",  # with check option violation
    "54",  # program limit exceeded, such as the size of an index entry
    "P0",  # raised by a trigger
}
_TRANSIENT_CLASSES = {
    "08",  # connection exception
    "25",  # invalid transaction state: the server became a standby
    "40",  # serialization failure, deadlock
    "53",  # insufficient resources
    "55",  # object not in prerequisite state, lock not available
    "57",  # operator intervention: shutdown, cancelled, starting up
    "58",  # system error
}

_REMEDIES = {
    "28": "check user and password in PROJECTOR_DATABASE_URL",
    "3D000": "create the database, or correct its name in PROJECTOR_DATABASE_URL",
    "42501": "grant the privileges that docs/how-to/connect.md lists",
    "42": "the tables are not those of this version: run `projector init`",
    "": "correct the cause and start the projector again",
}
"""By prefix of the SQLSTATE; the first match wins."""
_PROTOCOL_VIOLATION = "08P01"
_NO_SUCH_DATABASE = "3D000"


def translate(error: BaseException) -> ProjectorError | None:
    """Return the projector's error for an error of the driver, or None for any other error."""
    if isinstance(error, asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError):
        return DatabaseUnavailableError(f"a table was altered while it was in use: {one_line(error)}")
    if isinstance(error, asyncpg.PostgresError):
        return _translate_sqlstate(error)
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return DatabaseRefusedError(f"{one_line(error)}; correct PROJECTOR_DATABASE_URL")
    if isinstance(error, OverflowError | UnicodeEncodeError | asyncpg.exceptions.UnsupportedClientFeatureError):
        return PoisonError("database-rejected", f"a value has no representation in Postgres: {error}")
    if isinstance(error, asyncpg.InterfaceError | asyncpg.exceptions.InternalClientError | OSError):
        late = isinstance(error, TimeoutError)
        reason = "did not answer in time" if late else f"is not reachable: {one_line(error)}"
        return DatabaseUnavailableError(f"Postgres {reason}")
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of the driver as errors of the three families."""
    try:
        yield
    except Exception as error:
        known = None if isinstance(error, ProjectorError) else translate(error)
        if known is None:
            raise
        raise known from error


def _translate_sqlstate(error: asyncpg.PostgresError) -> ProjectorError:
    sqlstate = error.sqlstate or ""
    text = f"{one_line(error)} (SQLSTATE {sqlstate})"
    if sqlstate == _PROTOCOL_VIOLATION and "startup parameter" in text:
        return DatabaseRefusedError(f"a pooler refuses: {text}; connect to Postgres itself, see `projector doctor`")
    if sqlstate[:2] in _TRANSIENT_CLASSES:
        return DatabaseUnavailableError(f"Postgres cannot do it now: {text}")
    if isinstance(error, asyncpg.CheckViolationError) and error.constraint_name is None:
        # Not a check that a value fails, but a row that belongs into no partition.
        return DatabaseUnavailableError(f"the partition of today is missing, and made at the next attempt: {text}")
    if sqlstate[:2] in _POISON_CLASSES:
        return PoisonError("database-rejected", text)
    remedy = next(advice for beginning, advice in _REMEDIES.items() if sqlstate.startswith(beginning))
    if "row-level security" in text:
        remedy = "let the role see every row: give it BYPASSRLS, or disable row level security on that table"
    refusal = DatabaseLoginError if sqlstate[:2] == "28" or sqlstate == _NO_SUCH_DATABASE else DatabaseRefusedError
    return refusal(f"Postgres refuses: {text}; {remedy}")
