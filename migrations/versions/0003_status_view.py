"""The view `projector_status`, and what it needs of the checkpoint."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = postgresql.TIMESTAMP(timezone=True)

COLUMNS = {
    "lag_messages": (sa.BigInteger(), "Messages that were not folded, as the projector that works last saw"),
    "lag_seen_at": (TIME, "When it saw that, every few seconds while it works"),
    "active_since": (TIME, "Since when the projector works; where none does, since when the last one worked"),
}

VIEW = """
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

VIEW_COLUMNS = {
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


def upgrade() -> None:
    """Add them; no row is rewritten."""
    for name, (kind, comment) in COLUMNS.items():
        op.add_column("projector_checkpoint", sa.Column(name, kind, nullable=True, comment=comment))
    op.execute(VIEW)
    op.execute("COMMENT ON VIEW projector_status IS 'How far and how fresh the projection is'")
    for name, comment in VIEW_COLUMNS.items():
        op.execute(f"COMMENT ON COLUMN projector_status.{name} IS '{comment}'")


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP VIEW projector_status")
    for name in COLUMNS:
        op.drop_column("projector_checkpoint", name)
