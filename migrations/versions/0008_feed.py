"""The cursor of the published changes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TIME = postgresql.TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "projector_feed",
        sa.Column(
            "projection", sa.Text(), nullable=False, comment="Name of the projection, which is the name of its table"
        ),
        sa.Column(
            "shard",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="Shard of the endpoints; 0 if there is only one",
        ),
        sa.Column(
            "prefix",
            sa.Text(),
            nullable=False,
            comment="Subject prefix, as PROJECTOR_PUBLISH of the latest leader says",
        ),
        sa.Column(
            "stream",
            sa.Text(),
            comment="JetStream stream that holds the latest message; null: nothing was published yet",
        ),
        sa.Column(
            "stream_seq",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="Stream sequence of the latest message",
        ),
        sa.Column(
            "commit_no",
            sa.BigInteger(),
            nullable=False,
            comment="Commit up to which every change is published; see endpoint_id",
        ),
        sa.Column("committed_at", TIME, nullable=False, comment="Time of that commit"),
        sa.Column(
            "position",
            sa.BigInteger(),
            comment="Position of the latest change of that commit that is published; 0: it has none",
        ),
        sa.Column(
            "endpoint_id", sa.Text(), comment="Endpoint of that change; null: every change of the commit is published"
        ),
        sa.Column("facet", sa.Text(), comment="Facet of that change"),
        sa.Column(
            "advanced_at",
            TIME,
            server_default=sa.text("now()"),
            nullable=False,
            comment="When this row last moved; at most five times a second",
        ),
        sa.Column("error", sa.Text(), comment="Why nothing is published; null: publishing works"),
        sa.Column("error_since", TIME, comment="Since when"),
        sa.Column(
            "lost_commits",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="Commits whose changes left endpoint_change before they were published, at most",
        ),
        sa.Column("lost_at", TIME, comment="When that was last found"),
        sa.PrimaryKeyConstraint("projection", "shard", name="projector_feed_pkey"),
        comment="How far the changes are published to JetStream, if PROJECTOR_PUBLISH is set",
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("projector_feed")
