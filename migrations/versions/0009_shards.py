"""The number of shards, in each row of the checkpoint."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; every projection so far has one shard."""
    op.add_column(
        "projector_checkpoint",
        sa.Column(
            "shards",
            sa.Integer(),
            server_default="1",
            nullable=False,
            comment="Number of shards of the projection, the same in each of their rows",
        ),
    )


def downgrade() -> None:
    """Drop it; only a projection with one shard is understood without it."""
    op.drop_column("projector_checkpoint", "shards")
