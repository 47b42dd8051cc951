"""The tables and the view. Migrations must create the same; a test compares them."""

from sqlalchemy import DDL, BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, event, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from projector.storage.columns import ENDPOINT_ID, FACET_COLUMNS, LAST_EVENT, TIME

metadata = MetaData(
    naming_convention={"pk": "%(table_name)s_pkey", "ix": "%(table_name)s_%(column_0_N_name)s_idx"},
)

endpoint_state = Table(
    "endpoint_state",
    metadata,
    ENDPOINT_ID,
    *(column for facet in FACET_COLUMNS for column in facet.columns),
    *LAST_EVENT,
    *(facet.registers for facet in FACET_COLUMNS),
    comment="Current state of every endpoint, as the event stream implies it. "
    "Written by the projector only; rebuilt with `projector rebuild`",
    # Room on each page for the new version of a row, which then needs no change of an index.
    postgresql_with={"fillfactor": "80"},
)

projector_checkpoint = Table(
    "projector_checkpoint",
    metadata,
    Column("projection", Text, primary_key=True, comment="Name of the projection, which is the name of its table"),
    Column(
        "shard",
        Integer,
        primary_key=True,
        autoincrement=False,
        server_default="0",
        comment="Shard of the endpoints; 0 if there is only one",
    ),
    Column("stream", Text, nullable=False, comment="JetStream stream that is folded"),
    Column(
        "stream_created_at", TIME, nullable=False, comment="Creation time of the stream, to detect that it was replaced"
    ),
    Column(
        "position",
        BigInteger,
        nullable=False,
        comment="Stream sequence up to which every message is folded, parked or skipped",
    ),
    Column(
        "anchor_stored_at",
        TIME,
        comment="When the message at the position was stored, to detect that the stream was replaced",
    ),
    Column("anchor_hash", LargeBinary, comment="SHA-256 of the payload of that message"),
    Column(
        "rules_version",
        Integer,
        nullable=False,
        comment="Version of the rules that built the rows; 0: from before versions were numbers",
    ),
    Column("revision", Text, nullable=False, comment="Protocol revision of the messages"),
    Column(
        "originators",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="Originators whose events are folded; empty: all",
    ),
    Column(
        "skipped",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="Messages of unknown types so far, by group and type",
    ),
    Column(
        "generation",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="Incremented when a rebuild or retry changes rows; invalidates prefetched state",
    ),
    Column(
        "advanced_at",
        TIME,
        nullable=False,
        server_default=text("now()"),
        comment="When the position last moved",
    ),
    Column("lag_messages", BigInteger, comment="Messages not yet folded, as the leader last saw"),
    Column("lag_seen_at", TIME, comment="When the leader saw that; updated every few seconds"),
    Column(
        "active_since", TIME, comment="When the present leader took the lead; without a leader, when the last one did"
    ),
    comment="How far each projection has folded its stream; changes in the same transaction as the rows",
)

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("stream", Text, primary_key=True, comment="JetStream stream that holds the message"),
    Column(
        "position",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="Stream sequence of the message",
    ),
    Column("subject", Text, nullable=False, comment="Subject; bytes that are not UTF-8 are written as escapes"),
    Column("headers", JSONB, comment="Headers; null if there were none"),
    Column("payload", LargeBinary, nullable=False, comment="Payload as received"),
    Column("stored_at", TIME, nullable=False, comment="When the broker stored the message"),
    Column("reason", Text, nullable=False, comment="Kind of error"),
    Column("detail", Text, nullable=False, comment="What is wrong with the message"),
    Column("state", Text, nullable=False, server_default="parked", comment="parked, resolved or discarded"),
    Column("attempts", Integer, nullable=False, server_default="1", comment="Number of attempts to fold the message"),
    Column(
        "parked_at", TIME, nullable=False, server_default=text("now()"), comment="When the message was first parked"
    ),
    Column("closed_at", TIME, comment="When the message was resolved or discarded"),
    Column("note", Text, comment="Why the message was discarded"),
    comment="Messages that could not be folded",
)

Index("dead_letter_parked_idx", dead_letter.c.reason, postgresql_where=dead_letter.c.state == "parked")

_STATUS_VIEW = """
CREATE VIEW projector_status AS
SELECT checkpoint.projection, checkpoint.shard, checkpoint.stream, checkpoint.position,
       checkpoint.anchor_stored_at AS last_event_stored_at,
       checkpoint.advanced_at AS last_commit_at,
       checkpoint.lag_messages, checkpoint.lag_seen_at,
       leader.active,
       CASE WHEN leader.active THEN checkpoint.active_since END AS active_since,
       (SELECT count(*) FROM dead_letter WHERE dead_letter.stream = checkpoint.stream AND state = 'parked')
           AS dead_letters
FROM projector_checkpoint AS checkpoint
CROSS JOIN LATERAL (
    SELECT EXISTS (
        SELECT FROM pg_locks AS lock
        WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1
          AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (lock.classid::bigint << 32 | lock.objid::bigint)
              = hashtextextended('projector ' || checkpoint.projection, checkpoint.shard)
    ) AS active
) AS leader
"""
"""Looks for the lock `locks.LEADER_LOCK`."""

STATUS_COMMENTS = {
    "projection": "Name of the projection, which is the name of its table",
    "shard": "Shard of the endpoints; 0 if there is only one",
    "stream": "JetStream stream that is folded",
    "position": "Stream sequence up to which every message is folded, parked or skipped",
    "last_event_stored_at": "When the broker stored the message at the position",
    "last_commit_at": "When the position last moved",
    "lag_messages": "Messages not yet folded, as the leader last saw",
    "lag_seen_at": "When the leader saw that; updated every few seconds",
    "active": "Whether there is a leader",
    "active_since": "When the leader took the lead; null: there is none",
    "dead_letters": "Dead letters neither resolved nor discarded",
}

for _statement in (
    _STATUS_VIEW,
    "COMMENT ON VIEW projector_status IS 'Progress and freshness of the projection'",
    *(f"COMMENT ON COLUMN projector_status.{name} IS '{comment}'" for name, comment in STATUS_COMMENTS.items()),
):
    event.listen(metadata, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]
