"""The version of the rules as a number, and comments in plainer words."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OBJECTS = {
    "TABLE endpoint_state": "Current state of every endpoint, as the event stream implies it. Written by the projector only; rebuilt with `projector rebuild`",
    "TABLE projector_checkpoint": "How far each projection has folded its stream; changes in the same transaction as the rows",
    "TABLE dead_letter": "Messages that could not be folded",
    "VIEW projector_status": "Progress and freshness of the projection",
}

COLUMNS = {
    "endpoint_state": {
        "endpoint_id": "Endpoint id, as its events name it",
        "connectivity_changed_at": "Time of the connect or disconnect that decides the status",
        "disconnected_at": "Time of the latest disconnect that was applied",
        "connected_replica": "Replica of that instance; null: unknown",
        "metadata": "Metadata keys and their values; null where the protocol carries no value",
        "config_available_id": "Latest announced configuration",
        "config_applied_id": "Latest confirmed configuration",
        "last_event_seq": "Stream sequence of the latest event that named the endpoint, applied or not",
        **{
            f"{facet}_registers": f"Internal: the registers from which the {facet} columns derive. "
            "Each value with its stamp: [stream sequence, Unix ms, originator, replica]"
            for facet in ("connectivity", "application", "metadata", "configuration")
        },
    },
    "projector_checkpoint": {
        "projection": "Name of the projection, which is the name of its table",
        "shard": "Shard of the endpoints; 0 if there is only one",
        "stream_created_at": "Creation time of the stream, to detect that it was replaced",
        "anchor_stored_at": "When the message at the position was stored, to detect that the stream was replaced",
        "rules_version": "Version of the rules that built the rows; 0: from before versions were numbers",
        "revision": "Protocol revision of the messages",
        "generation": "Incremented when a rebuild or retry changes rows; invalidates prefetched state",
        "lag_messages": "Messages not yet folded, as the leader last saw",
        "lag_seen_at": "When the leader saw that; updated every few seconds",
        "active_since": "When the present leader took the lead; without a leader, when the last one did",
    },
    "dead_letter": {
        "subject": "Subject; bytes that are not UTF-8 are written as escapes",
        "headers": "Headers; null if there were none",
        "payload": "Payload as received",
        "stored_at": "When the broker stored the message",
        "reason": "Kind of error",
        "detail": "What is wrong with the message",
        "attempts": "Number of attempts to fold the message",
        "parked_at": "When the message was first parked",
        "closed_at": "When the message was resolved or discarded",
        "note": "Why the message was discarded",
    },
    "projector_status": {
        "projection": "Name of the projection, which is the name of its table",
        "shard": "Shard of the endpoints; 0 if there is only one",
        "lag_messages": "Messages not yet folded, as the leader last saw",
        "lag_seen_at": "When the leader saw that; updated every few seconds",
        "active": "Whether there is a leader",
        "active_since": "When the leader took the lead; null: there is none",
    },
}


def upgrade() -> None:
    """Change the one row of the checkpoint, and comments; no row of the state is rewritten."""
    op.alter_column(
        "projector_checkpoint",
        "rules_version",
        type_=sa.Integer(),
        existing_nullable=False,
        postgresql_using="0",  # a fingerprint is not one of the numbered versions, so the rows have to be rebuilt
    )
    for name, comment in OBJECTS.items():
        op.execute(f"COMMENT ON {name} IS '{comment}'")
    for relation, columns in COLUMNS.items():
        for name, comment in columns.items():
            op.execute(f"COMMENT ON COLUMN {relation}.{name} IS '{comment}'")


def downgrade() -> None:
    """Change the type back; the comments stay."""
    op.alter_column("projector_checkpoint", "rules_version", type_=sa.Text(), existing_nullable=False)
