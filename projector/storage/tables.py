"""The tables, defined once: migrations must come to the same, and a test compares them."""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text
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
