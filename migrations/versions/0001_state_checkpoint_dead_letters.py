"""The three tables: the state, the checkpoint, the dead letters."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = postgresql.TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "dead_letter",
        sa.Column("stream", sa.Text(), nullable=False, comment="JetStream stream that holds the message"),
        sa.Column(
            "position",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="Stream sequence of the message",
        ),
        sa.Column(
            "subject",
            sa.Text(),
            nullable=False,
            comment="Subject; bytes that are not text are written as escapes",
        ),
        sa.Column("headers", postgresql.JSONB(), nullable=True, comment="Headers, if it had any"),
        sa.Column("payload", sa.LargeBinary(), nullable=False, comment="Payload as it was received"),
        sa.Column("stored_at", TIME, nullable=False, comment="When the broker stored it"),
        sa.Column("reason", sa.Text(), nullable=False, comment="Kind of fault"),
        sa.Column("detail", sa.Text(), nullable=False, comment="What exactly is wrong"),
        sa.Column(
            "state",
            sa.Text(),
            server_default="parked",
            nullable=False,
            comment="parked, resolved or discarded",
        ),
        sa.Column(
            "attempts",
            sa.Integer(),
            server_default="1",
            nullable=False,
            comment="How often folding it was tried",
        ),
        sa.Column(
            "parked_at",
            TIME,
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was first parked",
        ),
        sa.Column("closed_at", TIME, nullable=True, comment="When it was resolved or discarded"),
        sa.Column("note", sa.Text(), nullable=True, comment="Why it was discarded"),
        sa.PrimaryKeyConstraint("stream", "position", name=op.f("dead_letter_pkey")),
        comment="Messages that could not be folded: nothing is skipped in silence",
    )
    op.create_index("dead_letter_parked_idx", "dead_letter", ["reason"], postgresql_where=sa.text("state = 'parked'"))
    op.create_table(
        "endpoint_state",
        sa.Column("endpoint_id", sa.Text(), nullable=False, comment="Endpoint, as its events name it"),
        sa.Column(
            "connectivity_status",
            sa.Text(),
            server_default="unknown",
            nullable=False,
            comment="unknown, connected or disconnected",
        ),
        sa.Column(
            "connectivity_changed_at",
            TIME,
            nullable=True,
            comment="Time of the connect or disconnect that the status rests on",
        ),
        sa.Column("connected_at", TIME, nullable=True, comment="Time of the latest connect"),
        sa.Column("disconnected_at", TIME, nullable=True, comment="Time of the latest disconnect that counted"),
        sa.Column(
            "connected_originator",
            sa.Text(),
            nullable=True,
            comment="Service instance that holds the latest session",
        ),
        sa.Column(
            "connected_replica",
            sa.Text(),
            nullable=True,
            comment="Replica of it that holds the latest session; null: unknown",
        ),
        sa.Column("app_version", sa.Text(), nullable=True, comment="Application version that the endpoint runs"),
        sa.Column(
            "app_version_changed_at",
            TIME,
            nullable=True,
            comment="Time of the latest event that named the version",
        ),
        sa.Column(
            "previous_app_version",
            sa.Text(),
            nullable=True,
            comment="Application version before the latest update",
        ),
        sa.Column("registered_at", TIME, nullable=True, comment="Time of the registration"),
        sa.Column(
            "metadata",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="Present metadata keys and their values; null where the protocol carries none",
        ),
        sa.Column("metadata_changed_at", TIME, nullable=True, comment="Time of the latest metadata event"),
        sa.Column(
            "config_status",
            sa.Text(),
            server_default="none",
            nullable=False,
            comment="none, pending (the available configuration is not the applied one) or applied",
        ),
        sa.Column("config_available_id", sa.Text(), nullable=True, comment="Configuration announced latest"),
        sa.Column("config_available_at", TIME, nullable=True, comment="Time of its announcement"),
        sa.Column("config_applied_id", sa.Text(), nullable=True, comment="Configuration confirmed latest"),
        sa.Column("config_applied_at", TIME, nullable=True, comment="Time of its confirmation"),
        sa.Column(
            "config_pending_id",
            sa.Text(),
            nullable=True,
            comment="The available configuration while it is pending, else null",
        ),
        sa.Column(
            "last_event_seq",
            sa.BigInteger(),
            nullable=False,
            comment="Stream sequence of the latest event that named the endpoint, whatever came of it",
        ),
        sa.Column("last_event_at", TIME, nullable=False, comment="Time of that event"),
        sa.Column(
            "connectivity_registers",
            postgresql.JSONB(),
            nullable=True,
            comment="Internal: the connectivity columns rest on it. Each value with its stamp: [stream sequence, Unix ms, originator, replica]",
        ),
        sa.Column(
            "application_registers",
            postgresql.JSONB(),
            nullable=True,
            comment="Internal: the application columns rest on it. Each value with its stamp: [stream sequence, Unix ms, originator, replica]",
        ),
        sa.Column(
            "metadata_registers",
            postgresql.JSONB(),
            nullable=True,
            comment="Internal: the metadata columns rest on it. Each value with its stamp: [stream sequence, Unix ms, originator, replica]",
        ),
        sa.Column(
            "configuration_registers",
            postgresql.JSONB(),
            nullable=True,
            comment="Internal: the configuration columns rest on it. Each value with its stamp: [stream sequence, Unix ms, originator, replica]",
        ),
        sa.PrimaryKeyConstraint("endpoint_id", name=op.f("endpoint_state_pkey")),
        comment="The present state of every endpoint, as the event stream implies it. Written by the projector only; rebuilt with `projector rebuild`",
        postgresql_with={"fillfactor": "80"},
    )
    op.create_table(
        "projector_checkpoint",
        sa.Column(
            "projection",
            sa.Text(),
            nullable=False,
            comment="Name of the projection, which is that of its table",
        ),
        sa.Column(
            "shard",
            sa.Integer(),
            server_default="0",
            autoincrement=False,
            nullable=False,
            comment="Share of the endpoints that this projector folds; 0 as long as there is one",
        ),
        sa.Column("stream", sa.Text(), nullable=False, comment="JetStream stream that is folded"),
        sa.Column(
            "stream_created_at",
            TIME,
            nullable=False,
            comment="When that stream was created, to recognise it by",
        ),
        sa.Column(
            "position",
            sa.BigInteger(),
            nullable=False,
            comment="Stream sequence up to which every message is folded, parked or skipped",
        ),
        sa.Column(
            "anchor_stored_at",
            TIME,
            nullable=True,
            comment="When the message at the position was stored, to recognise it by",
        ),
        sa.Column("anchor_hash", sa.LargeBinary(), nullable=True, comment="SHA-256 of the payload of that message"),
        sa.Column("rules_version", sa.Text(), nullable=False, comment="Fingerprint of the rules that built the rows"),
        sa.Column("revision", sa.Text(), nullable=False, comment="Protocol revision that the messages were read in"),
        sa.Column(
            "originators",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Originators whose events are folded; empty: all",
        ),
        sa.Column(
            "skipped",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="Messages of unknown types so far, by group and type",
        ),
        sa.Column(
            "generation",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="How often rows were changed other than by folding on, by a rebuild or a retry",
        ),
        sa.Column(
            "advanced_at",
            TIME,
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the position last moved",
        ),
        sa.PrimaryKeyConstraint("projection", "shard", name=op.f("projector_checkpoint_pkey")),
        comment="How far each projection has folded its stream; moves in the transaction that changes the rows",
    )


def downgrade() -> None:
    """Drop them; the stream still has everything that was in them but discarded dead letters."""
    op.drop_table("projector_checkpoint")
    op.drop_table("endpoint_state")
    op.drop_table("dead_letter")
