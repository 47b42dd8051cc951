"""The tables; views and functions are in `views/`. Migrations must create the same tables; a test compares them."""

import re
from pathlib import Path

from sqlalchemy import BigInteger, Column, Connection, Index, Integer, LargeBinary, MetaData, Table, Text, event
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from projector.storage.columns import ENDPOINT_COLUMNS, TIME, required

VIEWS = tuple(
    Path(__file__).parent / "views" / f"{name}.sql"
    for name in ("projector_status", "endpoint_change", "endpoint_session", "endpoint_state_at")
)
"""Views and functions, in the order in which they can be created."""

_BETWEEN_STATEMENTS = re.compile(r";\n(?=\n|COMMENT|REVOKE|\Z)")

metadata = MetaData(naming_convention={"pk": "%(table_name)s_pkey", "ix": "%(table_name)s_%(column_0_N_name)s_idx"})

endpoint_state = Table(
    "endpoint_state",
    metadata,
    *ENDPOINT_COLUMNS,
    comment="Current state of every endpoint, as the event stream implies it. "
    "Written by the projector only; rebuilt with `projector rebuild`",
    # Leaves room on each page for the next version of a row, so that an update changes no index.
    postgresql_with={"fillfactor": "80"},
)

# The primary key sorts as the database does: in that order, ids with a common prefix need not be neighbours.
# Statements that do not ask for this collation, such as those of the hot path, cannot choose this index.
Index("endpoint_state_endpoint_id_idx", endpoint_state.c.endpoint_id.collate("C"))

projector_checkpoint = Table(
    "projector_checkpoint",
    metadata,
    required("projection", Text, "Name of the projection, which is the name of its table", primary_key=True),
    required(
        "shard", Integer, "Shard of the endpoints; 0 if there is only one", "'0'", primary_key=True, autoincrement=False
    ),
    required("stream", Text, "JetStream stream that is folded"),
    required("stream_created_at", TIME, "Creation time of the stream, to detect that it was replaced"),
    required("position", BigInteger, "Stream sequence up to which every message is folded, parked or skipped"),
    Column(
        "anchor_stored_at",
        TIME,
        comment="When the message at the position was stored, to detect that the stream was replaced",
    ),
    Column("anchor_hash", LargeBinary, comment="SHA-256 of the payload of that message"),
    required(
        "rules_version", Integer, "Version of the rules that built the rows; 0: from before versions were numbers"
    ),
    required("revision", Text, "Protocol revision of the messages"),
    required("originators", ARRAY(Text), "Originators whose events are folded; empty: all", "'{}'"),
    required("skipped", JSONB, "Messages of unknown types so far, by group and type", "'{}'::jsonb"),
    required(
        "generation",
        BigInteger,
        "Incremented when a rebuild or retry changes rows; invalidates prefetched state",
        "'0'",
    ),
    required("advanced_at", TIME, "When the position last moved", "now()"),
    Column("lag_messages", BigInteger, comment="Messages not yet folded, as the leader last saw"),
    Column("lag_seen_at", TIME, comment="When the leader saw that; updated every few seconds"),
    Column(
        "active_since", TIME, comment="When the present leader took the lead; without a leader, when the last one did"
    ),
    required("commits", BigInteger, "Number of commits so far: that of the latest one", "'0'"),
    Column(
        "changes_since",
        TIME,
        comment="Since when endpoint_change has the changes of every commit; null: they are not recorded",
    ),
    required("shards", Integer, "Number of shards of the projection, the same in each of their rows", "'1'"),
    comment="How far each projection has folded its stream; changes in the same transaction as the rows",
)

endpoint_change = Table(
    "endpoint_change",
    metadata,
    required("shard", Integer, "Shard of the endpoint", autoincrement=False),
    required("commit_no", BigInteger, "Number of the commit in its shard: the order in which the table changed"),
    required("committed_at", TIME, "Time of the commit, never earlier than that of the commit before"),
    required("endpoint_id", Text, "Endpoint id"),
    required("facet", Text, "connectivity, registration, application, metadata or configuration"),
    required(
        "verdict",
        Text,
        "applied, late (superseded by what was known), fenced (from a replica that no longer held the session), "
        "or corrected (by a rebuild, or by a retry of a dead letter)",
    ),
    Column("position", BigInteger, comment="Stream sequence of the message; null for corrections, as the next five"),
    Column("occurred_at", TIME, comment="Time of the event"),
    Column("stored_at", TIME, comment="When the broker stored the message"),
    Column("event", Text, comment="Group and type of the event"),
    Column("originator", Text, comment="Service instance that sent the event"),
    Column("replica", Text, comment="Replica of that instance; null: unknown"),
    Column(
        "before",
        JSONB,
        comment="Columns of the facet that changed, with their old values; null: none did, or the row is new",
    ),
    Column(
        "after",
        JSONB,
        comment="Columns of the facet that changed, with their new values; null: none did, or the row was deleted",
    ),
    required(
        "previous_event_seq", BigInteger, "last_event_seq of the row before the change; 0: there was no row", "'0'"
    ),
    Column("previous_event_at", TIME, comment="last_event_at of the row before the change"),
    comment="What was done to endpoint_state, kept for as long as PROJECTOR_CHANGES says; one partition per day (UTC)",
    postgresql_partition_by="RANGE (committed_at)",
)

Index("endpoint_change_endpoint_id_idx", endpoint_change.c.endpoint_id, endpoint_change.c.committed_at)
Index("endpoint_change_commit_no_idx", endpoint_change.c.shard, endpoint_change.c.commit_no)
# Rows are written in the order of this column, so a block range index is small, costs next to nothing, and is enough.
Index(
    "endpoint_change_committed_at_idx",
    endpoint_change.c.committed_at,
    postgresql_using="brin",
    postgresql_with={"autosummarize": "on"},
)

projector_feed = Table(
    "projector_feed",
    metadata,
    required("projection", Text, "Name of the projection, which is the name of its table", primary_key=True),
    required("shard", Integer, "Shard of the endpoints; 0 if there is only one", primary_key=True, autoincrement=False),
    required("prefix", Text, "Subject prefix, as PROJECTOR_PUBLISH of the latest leader says"),
    Column("stream", Text, comment="JetStream stream that holds the latest message; null: nothing was published yet"),
    required("stream_seq", BigInteger, "Stream sequence of the latest message", "'0'"),
    required("commit_no", BigInteger, "Commit up to which every change is published; see endpoint_id"),
    required("committed_at", TIME, "Time of that commit"),
    Column(
        "position",
        BigInteger,
        comment="Position of the latest change of that commit that is published; 0: it has none",
    ),
    Column("endpoint_id", Text, comment="Endpoint of that change; null: every change of the commit is published"),
    Column("facet", Text, comment="Facet of that change"),
    required("advanced_at", TIME, "When this row last moved; at most five times a second", "now()"),
    Column("error", Text, comment="Why nothing is published; null: publishing works"),
    Column("error_since", TIME, comment="Since when"),
    required(
        "lost_commits",
        BigInteger,
        "Commits whose changes left endpoint_change before they were published, at most",
        "'0'",
    ),
    Column("lost_at", TIME, comment="When that was last found"),
    comment="How far the changes are published to JetStream, if PROJECTOR_PUBLISH is set",
)

dead_letter = Table(
    "dead_letter",
    metadata,
    required("stream", Text, "JetStream stream that holds the message", primary_key=True),
    required("position", BigInteger, "Stream sequence of the message", primary_key=True, autoincrement=False),
    required("subject", Text, "Subject; bytes that are not UTF-8 are written as escapes"),
    Column("headers", JSONB, comment="Headers; null if there were none"),
    required("payload", LargeBinary, "Payload as received"),
    required("stored_at", TIME, "When the broker stored the message"),
    required("reason", Text, "Kind of error"),
    required("detail", Text, "What is wrong with the message"),
    required("state", Text, "parked, resolved or discarded", "'parked'"),
    required("attempts", Integer, "Number of attempts to fold the message", "'1'"),
    required("parked_at", TIME, "When the message was first parked", "now()"),
    Column("closed_at", TIME, comment="When the message was resolved or discarded"),
    Column("note", Text, comment="Why the message was discarded"),
    comment="Messages that could not be folded",
)

Index("dead_letter_parked_idx", dead_letter.c.reason, postgresql_where=dead_letter.c.state == "parked")


@event.listens_for(metadata, "after_create")
def _create_views(_: MetaData, connection: Connection, **__: object) -> None:
    schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    for path in VIEWS:
        for statement in _BETWEEN_STATEMENTS.split(path.read_text(encoding="utf-8").replace(":schema", schema)):
            connection.exec_driver_sql(statement)
