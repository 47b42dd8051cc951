"""Registers as text instead of JSONB: they are only read and written as a whole."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FACETS = ("connectivity", "application", "metadata", "configuration")


def upgrade() -> None:
    """Rewrite the table once; the rows are of other rules from then on, and `projector rebuild` settles them."""
    op.execute(f"ALTER TABLE endpoint_state {_columns('text')}")


def downgrade() -> None:
    """Rewrite it back."""
    op.execute(f"ALTER TABLE endpoint_state {_columns('jsonb')}")


def _columns(kind: str) -> str:
    return ", ".join(f"ALTER COLUMN {facet}_registers TYPE {kind} USING {facet}_registers::{kind}" for facet in FACETS)
