"""Registration as a facet of its own, failed configurations, and the unregistration in the registers of every facet."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = postgresql.TIMESTAMP(timezone=True)
REGISTERS = "Each value with its stamp: [stream sequence, Unix ms, originator, replica]"

COLUMNS = {
    "registration_status": (sa.Text(), "unknown, registered or unregistered"),
    "unregistered_at": (TIME, "Time of the latest unregistration: nothing that it supersedes is in any column"),
    "registration_registers": (
        sa.Text(),
        f"Internal: the registers from which the registration columns derive. {REGISTERS}",
    ),
    "config_failed_id": (sa.Text(), "Latest configuration that failed, whatever the status"),
    "config_failed_at": (TIME, "Time of that failure"),
    "config_failure_code": (sa.Integer(), "Status code of that failure"),
    "config_failure_reason": (sa.Text(), "Reason of that failure; null: none was given"),
}
DEFAULTS = {"registration_status": "unknown"}

# By column: what it said before, and what it says now.
COMMENTS = {
    "registered_at": (
        "Time of the registration",
        "Time of the registration; null once the endpoint was unregistered",
    ),
    "config_status": (
        "none, pending (the available configuration is not the applied one) or applied",
        "none, pending (the available configuration is not the applied one), applied, or failed (neither confirmed nor announced anew since the failure)",
    ),
    "config_available_id": (
        "Latest announced configuration",
        "Latest announced configuration; empty: none is assigned",
    ),
    "config_applied_id": (
        "Latest confirmed configuration",
        "Latest confirmed configuration; empty: that there is none",
    ),
}

# `json` keeps the text of an element as it is, so that the registers are those a rebuild would write, to the byte.
# What cannot be read stays as it is: the projector says which row that is when it comes to it.
READABLE = """
CREATE FUNCTION pg_temp.registers(text) RETURNS json LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN $1::json;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$
"""

MOVE = """
UPDATE endpoint_state AS state SET
    registration_status = CASE WHEN registered <> 'null' THEN 'registered' ELSE 'unknown' END,
    registration_registers = CASE WHEN registered <> 'null' THEN format('[%s,null]', registered) END,
    application_registers = CASE
        WHEN registered IS NULL THEN state.application_registers
        WHEN version <> 'null' OR previous <> 'null' THEN format('[%s,%s,null]', version, previous)
    END,
    connectivity_registers = regexp_replace(state.connectivity_registers, ']$', ',null]'),
    metadata_registers = regexp_replace(state.metadata_registers, ']$', ',null]'),
    configuration_registers = regexp_replace(state.configuration_registers, ']$', ',null,null]')
FROM (
    SELECT endpoint_id, (held -> 0)::text, (held -> 1)::text, (held -> 2)::text
    FROM (SELECT endpoint_id, pg_temp.registers(application_registers) FROM endpoint_state)
        AS readable (endpoint_id, held)
) AS application (endpoint_id, version, previous, registered)
WHERE application.endpoint_id = state.endpoint_id
"""

MOVE_BACK = """
UPDATE endpoint_state AS state SET
    application_registers = CASE
        WHEN version <> 'null' OR previous <> 'null' OR registered <> 'null'
        THEN format('[%s,%s,%s]', coalesce(version, 'null'), coalesce(previous, 'null'), coalesce(registered, 'null'))
        ELSE state.application_registers
    END,
    connectivity_registers = (
        SELECT format('[%s,%s]', held -> 0, held -> 1) FROM pg_temp.registers(connectivity_registers) AS held
        WHERE held IS NOT NULL
    ),
    metadata_registers = (
        SELECT format('[%s,%s]', held -> 0, held -> 1) FROM pg_temp.registers(metadata_registers) AS held
        WHERE held IS NOT NULL
    ),
    configuration_registers = (
        SELECT format('[%s,%s]', held -> 0, held -> 1) FROM pg_temp.registers(configuration_registers) AS held
        WHERE held IS NOT NULL
    )
FROM (
    SELECT endpoint_id, (application -> 0)::text, (application -> 1)::text, (registration -> 0)::text
    FROM (
        SELECT endpoint_id, pg_temp.registers(application_registers), pg_temp.registers(registration_registers)
        FROM endpoint_state
    ) AS readable (endpoint_id, application, registration)
) AS moved (endpoint_id, version, previous, registered)
WHERE moved.endpoint_id = state.endpoint_id
"""


def upgrade() -> None:
    """Add the columns, and move what is held: a stream that was trimmed could not give it again."""
    for name, (kind, comment) in COLUMNS.items():
        default = DEFAULTS.get(name)
        op.add_column(
            "endpoint_state",
            sa.Column(name, kind, server_default=default, nullable=default is None, comment=comment),
        )
    for name, (_, comment) in COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN endpoint_state.{name} IS '{comment}'")
    op.execute(READABLE)
    op.execute(MOVE)
    op.execute("DROP FUNCTION pg_temp.registers(text)")


def downgrade() -> None:
    """Move back what the version before knows; `projector rebuild` settles the rest."""
    op.execute(READABLE)
    op.execute(MOVE_BACK)
    op.execute("DROP FUNCTION pg_temp.registers(text)")
    for name, (comment, _) in COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN endpoint_state.{name} IS '{comment}'")
    for name in COLUMNS:
        op.drop_column("endpoint_state", name)
