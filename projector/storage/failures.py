"""Translates errors of the driver into the three families."""

import ssl
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
    "25006": "the server is read-only, as a standby is: name the primary in PROJECTOR_DATABASE_URL",
    "28000": "check the user in PROJECTOR_DATABASE_URL, its sslmode, and pg_hba.conf on the server",
    "28": "check user and password in PROJECTOR_DATABASE_URL",
    "3D000": "create the database, or correct its name in PROJECTOR_DATABASE_URL",
    "3F000": "create a schema of the role's search_path, or correct the search_path",
    "42501": "grant the privileges that docs/how-to/connect.md lists",
    "42": "the tables are not as `projector init` makes them; `projector doctor` says what is missing",
    "53300": "raise the limit: docs/how-to/connect.md counts the connections of a daemon and a rebuild",
    "55P03": "another session holds a lock, see pg_stat_activity",
}
"""By prefix of the SQLSTATE; the first match wins."""
_ANY_REMEDY = "correct the cause and start the projector again"
_TLS_REMEDY = (
    "check the files that sslrootcert, sslcert and sslkey in PROJECTOR_DATABASE_URL name; "
    "the server's certificate has to name the host"
)
_NOT_OWNER_REMEDY = (
    "`projector init` has to run as the role that owns the tables; "
    "a table that a rebuild of another role has left has to be dropped by its owner"
)
_ROW_SECURITY_REMEDY = "let the role see every row: give it BYPASSRLS, or disable row level security on that table"
_PROTOCOL_VIOLATION = "08P01"
_NO_SUCH_DATABASE = "3D000"
_STATEMENT_LOST = ("26000", "42P05")
"""A prepared statement is missing, or exists already."""


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
        return _translate_connection(error)
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


def _translate_connection(error: Exception) -> ProjectorError:
    """Translate an error of the connection, which the server did not report."""
    text = one_line(error)
    if isinstance(error, ssl.SSLError):
        return DatabaseUnavailableError(f"no TLS connection to Postgres: {text}; {_TLS_REMEDY}")
    if isinstance(error, TimeoutError):
        return DatabaseUnavailableError("Postgres did not answer in time")
    if isinstance(error, asyncpg.exceptions.TargetServerAttributeNotMatched):
        return DatabaseUnavailableError("no host of PROJECTOR_DATABASE_URL that can be reached is the primary")
    if type(error) is ConnectionError and "SSL" in text:
        return DatabaseLoginError(
            f"TLS is required by the settings, but Postgres does not offer it: {text}; "
            "enable it there, or correct sslmode in PROJECTOR_DATABASE_URL"
        )
    if isinstance(error, asyncpg.InterfaceError) and "closed" in text:
        return DatabaseUnavailableError("the connection to Postgres was lost")
    return DatabaseUnavailableError(f"Postgres is not reachable: {text}")


def _translate_sqlstate(error: asyncpg.PostgresError) -> ProjectorError:
    sqlstate = error.sqlstate or ""
    text = f"{one_line(error)} (SQLSTATE {sqlstate})"
    if sqlstate in _STATEMENT_LOST:
        # The driver's hint is about its own options.
        pooler = f"{error.args[0].splitlines()[0]} (SQLSTATE {sqlstate})"
        return DatabaseRefusedError(
            f"a pooler in transaction mode answers instead of Postgres: {pooler}; "
            "connect to Postgres itself, or use a pool in session mode"
        )
    if sqlstate == _PROTOCOL_VIOLATION and "startup parameter" in text:
        return DatabaseRefusedError(f"a pooler refuses: {text}; connect to Postgres itself, see `projector doctor`")
    remedy = _remedy(sqlstate, text)
    if sqlstate[:2] in _TRANSIENT_CLASSES:
        return DatabaseUnavailableError("; ".join(filter(None, (f"Postgres cannot do it now: {text}", remedy))))
    if isinstance(error, asyncpg.CheckViolationError) and not (error.constraint_name or "constraint" in text.lower()):
        # Not a check that a value fails, but a row that fits into no partition.
        # A constraint that fails on a worker of Citus is named in the text only.
        return DatabaseUnavailableError(f"the partition of today is missing, and made at the next attempt: {text}")
    if sqlstate[:2] in _POISON_CLASSES:
        return PoisonError("database-rejected", text)
    refusal = DatabaseLoginError if sqlstate[:2] == "28" or sqlstate == _NO_SUCH_DATABASE else DatabaseRefusedError
    return refusal(f"Postgres refuses: {text}; {remedy or _ANY_REMEDY}")


def _remedy(sqlstate: str, text: str) -> str | None:
    if "row-level security" in text:
        return _ROW_SECURITY_REMEDY
    if "must be owner of" in text:
        return _NOT_OWNER_REMEDY
    return next((advice for beginning, advice in _REMEDIES.items() if sqlstate.startswith(beginning)), None)
