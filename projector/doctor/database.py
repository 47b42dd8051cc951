"""Checks of the Postgres database."""

from collections.abc import Sequence

from projector.doctor.findings import Check, shards_have, version_text
from projector.domain.database_info import DatabaseInfo

_OLDEST = (15, 0)
_PREPARED_BESIDES = 9
"""Transactions that are prepared at the same time as those of the leaders, one for each shard."""


def _too_old(database: DatabaseInfo) -> str | None:
    return (
        f"Postgres {version_text(database.version)} is older than every supported version"
        if database.version < _OLDEST
        else None
    )


def _standby(database: DatabaseInfo) -> str | None:
    return "this server is a read-only standby" if database.standby else None


def _encoding(database: DatabaseInfo) -> str | None:
    return f"the database encoding is {database.encoding}" if database.encoding != "UTF8" else None


def _fsync(database: DatabaseInfo) -> str | None:
    return "fsync is off" if "fsync" in database.off else None


def _full_page_writes(database: DatabaseInfo) -> str | None:
    return "full_page_writes is off" if "full_page_writes" in database.off else None


def _synchronous_commit(database: DatabaseInfo) -> str | None:
    return "synchronous_commit is off" if "synchronous_commit" in database.off else None


def _pooler(database: DatabaseInfo) -> str | None:
    met = database.backends
    if len(met.first) > 1 or len(met.second) > 1:
        return "a pooler distributes the transactions of one connection over several server processes"
    if met.first & met.second:
        return "a pooler lets two open connections share a server process"
    return None


def _maybe_pooler(database: DatabaseInfo) -> str | None:
    if _pooler(database) or database.backends.announced in database.backends.first:
        return None
    return "a proxy or pooler answers instead of Postgres: the server process is not the one announced"


def _second_connection(database: DatabaseInfo) -> str | None:
    refusal = database.backends.refusal
    return refusal and f"a second connection, with the daemon's parameters, is rejected: {refusal}"


def _ignored_parameters(database: DatabaseInfo) -> str | None:
    ignored = database.backends.ignored
    return f"connections do not get the daemon's parameters: {', '.join(ignored)}" if ignored else None


def _unmigrated(database: DatabaseInfo) -> str | None:
    unseen = database.schema is None or any(privilege.startswith("SELECT") for privilege in database.missing_privileges)
    if database.migrated or unseen:
        return None
    return (
        f"the database is at migration {database.migration or 'none'}, this version needs {database.migration_wanted}"
    )


def _schema_missing(database: DatabaseInfo) -> str | None:
    path = database.search_path_without_schema
    return None if path is None else f"no schema of the search_path exists: {path}"


def _tables_altered(database: DatabaseInfo) -> str | None:
    return f"these tables or columns are gone: {', '.join(database.absent)}" if database.absent else None


def _checkpoint_incomplete(database: DatabaseInfo) -> str | None:
    rows, shards = len(database.checkpoints), database.shards
    return f"projector_checkpoint has {rows} of the rows of {shards} shards" if rows not in (0, shards) else None


def _shard_without_leader(database: DatabaseInfo) -> str | None:
    if not database.without_leader or not database.led:
        return None
    return f"{shards_have(database.without_leader)} no leader, and others have one"


def _row_security(database: DatabaseInfo) -> str | None:
    if not database.row_security:
        return None
    return f"row-level security may hide rows from the role: {', '.join(database.row_security)}"


def _privileges(database: DatabaseInfo) -> str | None:
    return f"the role lacks {', '.join(database.missing_privileges)}" if database.missing_privileges else None


def _privileges_to_rebuild(database: DatabaseInfo) -> str | None:
    return f"the role lacks {', '.join(database.missing_to_rebuild)}" if database.missing_to_rebuild else None


def _batch_table_missing(database: DatabaseInfo) -> str | None:
    missing = database.batch_table_missing and database.migrated
    return "the table is distributed, and endpoint_state_batch is missing or has other columns" if missing else None


def _worker_silent(database: DatabaseInfo) -> str | None:
    silent = [f"{worker.name} ({worker.error})" for worker in database.workers if worker.prepared_transactions is None]
    return f"workers of Citus do not answer: {', '.join(silent)}" if silent else None


def _worker_cannot_prepare(database: DatabaseInfo) -> str | None:
    needed = database.shards + _PREPARED_BESIDES
    allowed = [worker for worker in database.workers if worker.prepared_transactions is not None]
    few = [worker.name for worker in allowed if (worker.prepared_transactions or 0) < needed]
    return f"max_prepared_transactions is below {needed} on {', '.join(few)}" if few else None


DATABASE_CHECKS: Sequence[Check[DatabaseInfo]] = (
    Check("postgres-too-old", "error", _too_old, "update Postgres to 15 or newer"),
    Check(
        "standby",
        "error",
        _standby,
        "name the primary in PROJECTOR_DATABASE_URL, or all hosts: the primary of several is used",
    ),
    Check(
        "encoding",
        "error",
        _encoding,
        "create another one with `CREATE DATABASE … ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0`: "
        "other encodings cannot store every text",
    ),
    Check(
        "fsync-off",
        "error",
        _fsync,
        "turn it on: a machine crash can damage the database beyond repair",
    ),
    Check(
        "full-page-writes-off",
        "warning",
        _full_page_writes,
        "turn it on, unless the file system never writes a page partially",
    ),
    Check(
        "synchronous-commit-off",
        "warning",
        _synchronous_commit,
        "turn it on, unless the table may lose its last commits in a crash: "
        "the daemon folds those messages again if the stream still holds them",
    ),
    Check(
        "pooler",
        "error",
        _pooler,
        "connect to Postgres directly, or to a pool in session mode: "
        "the leader's lock, its temporary tables and its prepared statements belong to a session",
    ),
    Check(
        "maybe-pooler",
        "warning",
        _maybe_pooler,
        "use session mode, or connect to Postgres directly",
    ),
    Check(
        "second-connection",
        "error",
        _second_connection,
        "allow the role as many connections as docs/how-to/connect.md counts; "
        "let a pooler accept the daemon's parameters, or connect to Postgres directly",
    ),
    Check(
        "ignored-parameters",
        "warning",
        _ignored_parameters,
        "let the pooler pass them on, or set them for the role with `ALTER ROLE … SET`: "
        "without them a paused daemon keeps the lead, and statements may get slow plans",
    ),
    Check("not-migrated", "error", _unmigrated, "run `projector init`; if the tables are newer, run the newer version"),
    Check(
        "schema-missing",
        "error",
        _schema_missing,
        "create a schema of that name, or correct the search_path of the role or the database",
    ),
    Check(
        "tables-altered",
        "error",
        _tables_altered,
        "restore them as docs/how-to/troubleshoot.md describes, and run `projector rebuild`",
    ),
    Check(
        "checkpoint-incomplete",
        "error",
        _checkpoint_incomplete,
        "restore them from a backup, or empty projector_checkpoint, endpoint_change and projector_feed "
        "and run `projector rebuild`: the numbers of commits begin anew",
    ),
    Check(
        "shard-without-leader",
        "error",
        _shard_without_leader,
        "look at the logs of the workers: the one that should lead it is silent, or says `retrying` and why; "
        "restart it, or start another `projector run`",
    ),
    Check(
        "row-security",
        "error",
        _row_security,
        "give the role BYPASSRLS, or disable row level security on the table",
    ),
    Check("privileges", "error", _privileges, "grant the privileges that docs/how-to/connect.md lists"),
    Check(
        "privileges-to-rebuild",
        "warning",
        _privileges_to_rebuild,
        "grant these as well, for `projector rebuild` and `projector verify`",
    ),
    Check("batch-table-missing", "error", _batch_table_missing, "run `projector init`, which creates it"),
    Check(
        "worker-silent",
        "error",
        _worker_silent,
        "start it, or correct its address with citus_update_node and its pg_hba.conf: every commit needs all workers",
    ),
    Check(
        "worker-cannot-prepare",
        "error",
        _worker_cannot_prepare,
        "raise it on these workers and restart them: a commit of several nodes is prepared on each of them",
    ),
)
