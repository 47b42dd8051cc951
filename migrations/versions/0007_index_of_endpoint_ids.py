"""An index of endpoint ids in the order of their bytes, for the search by prefix."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INDEX = "endpoint_state_endpoint_id_idx"


def upgrade() -> None:
    """Add it; writers wait meanwhile, a second or two for a million endpoints."""
    op.create_index(INDEX, "endpoint_state", [sa.text('endpoint_id COLLATE "C"')])


def downgrade() -> None:
    """Drop it."""
    op.drop_index(INDEX)
