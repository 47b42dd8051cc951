"""The tables and the view, defined once: migrations must come to the same, and a test compares them."""

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
    comment="The present state of every endpoint, as the event stream implies it. "
    "Written by the projector only; rebuilt with `projector rebuild`",
    # Room on each page for the new version of a row, which then needs no change of an index.
    postgresql_with={"fillfactor": "80"},
)

projector_checkpoint = Table(
    "projector_checkpoint",
    metadata,
    Column("projection", Text, primary_key=True, comment="Name of the projection, which is that of its table"),
    Column(
        "shard",
        Integer,
        primary_key=True,
        autoincrement=False,
        server_default="0",
        comment="Share of the endpoints that this projector folds; 0 as long as there is one",
    ),
    Column("stream", Text, nullable=False, comment="JetStream stream that is folded"),
    Column("stream_created_at", TIME, nullable=False, comment="When that stream was created, to recognise it by"),
    Column(
        "position",
        BigInteger,
        nullable=False,
        comment="Stream sequence up to which every message is folded, parked or skipped",
    ),
    Column("anchor_stored_at", TIME, comment="When the message at the position was stored, to recognise it by"),
    Column("anchor_hash", LargeBinary, comment="SHA-256 of the payload of that message"),
    Column("rules_version", Text, nullable=False, comment="Fingerprint of the rules that built the rows"),
    Column("revision", Text, nullable=False, comment="Protocol revision that the messages were read in"),
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
        comment="How often rows were changed other than by folding on, by a rebuild or a retry",
    ),
    Column(
        "advanced_at",
        TIME,
        nullable=False,
        server_default=text("now()"),
        comment="When the position last moved",
    ),
    Column("lag_messages", BigInteger, comment="Messages that were not folded, as the projector that works last saw"),
    Column("lag_seen_at", TIME, comment="When it saw that, every few seconds while it works"),
    Column(
        "active_since", TIME, comment="Since when the projector works; where none does, since when the last one worked"
    ),
    comment="How far each projection has folded its stream; moves in the transaction that changes the rows",
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
    Column("subject", Text, nullable=False, comment="Subject; bytes that are not text are written as escapes"),
    Column("headers", JSONB, comment="Headers, if it had any"),
    Column("payload", LargeBinary, nullable=False, comment="Payload as it was received"),
    Column("stored_at", TIME, nullable=False, comment="When the broker stored it"),
    Column("reason", Text, nullable=False, comment="Kind of fault"),
    Column("detail", Text, nullable=False, comment="What exactly is wrong"),
    Column("state", Text, nullable=False, server_default="parked", comment="parked, resolved or discarded"),
    Column("attempts", Integer, nullable=False, server_default="1", comment="How often folding it was tried"),
    Column("parked_at", TIME, nullable=False, server_default=text("now()"), comment="When it was first parked"),
    Column("closed_at", TIME, comment="When it was resolved or discarded"),
    Column("note", Text, comment="Why it was discarded"),
    comment="Messages that could not be folded: nothing is skipped in silence",
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
"""The lock is that of `locks.LEADER_LOCK`."""

STATUS_COMMENTS = {
    "projection": "Name of the projection, which is that of its table",
    "shard": "Share of the endpoints that the projector folds; 0 as long as there is one",
    "stream": "JetStream stream that is folded",
    "position": "Stream sequence up to which every message is folded, parked or skipped",
    "last_event_stored_at": "When the broker stored the message at the position",
    "last_commit_at": "When the position last moved",
    "lag_messages": "Messages that were not folded, as the projector that works last saw",
    "lag_seen_at": "When it saw that, every few seconds while it works",
    "active": "Whether a projector works",
    "active_since": "Since when; null: none does",
    "dead_letters": "Dead letters neither resolved nor discarded",
}

for _statement in (
    _STATUS_VIEW,
    "COMMENT ON VIEW projector_status IS 'How far and how fresh the projection is'",
    *(f"COMMENT ON COLUMN projector_status.{name} IS '{comment}'" for name, comment in STATUS_COMMENTS.items()),
):
    event.listen(metadata, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]
