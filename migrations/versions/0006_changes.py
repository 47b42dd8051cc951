"""The log of changes, and the views and functions on it."""

import re

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME = postgresql.TIMESTAMP(timezone=True)

CHECKPOINT_COLUMNS = {
    "commits": (sa.BigInteger(), "0", "Number of commits so far: that of the latest one"),
    "changes_since": (
        TIME,
        None,
        "Since when endpoint_change has the changes of every commit; null: they are not recorded",
    ),
}

TABLE = """
CREATE TABLE endpoint_change (
    shard integer NOT NULL,
    commit_no bigint NOT NULL,
    committed_at timestamptz NOT NULL,
    endpoint_id text NOT NULL,
    facet text NOT NULL,
    verdict text NOT NULL,
    position bigint,
    occurred_at timestamptz,
    stored_at timestamptz,
    event text,
    originator text,
    replica text,
    before jsonb,
    after jsonb,
    previous_event_seq bigint NOT NULL DEFAULT '0',
    previous_event_at timestamptz
) PARTITION BY RANGE (committed_at)
"""
TABLE_COMMENT = (
    "What was done to endpoint_state, kept for as long as PROJECTOR_CHANGES says; one partition per day (UTC)"
)
COLUMNS = {
    "shard": "Shard of the endpoint",
    "commit_no": "Number of the commit in its shard: the order in which the table changed",
    "committed_at": "Time of the commit, never earlier than that of the commit before",
    "endpoint_id": "Endpoint id",
    "facet": "connectivity, registration, application, metadata or configuration",
    "verdict": "applied, late (superseded by what was known), fenced (from a replica that no longer held the session), or corrected (by a rebuild, or by a retry of a dead letter)",
    "position": "Stream sequence of the message; null for corrections, as the next five",
    "occurred_at": "Time of the event",
    "stored_at": "When the broker stored the message",
    "event": "Group and type of the event",
    "originator": "Service instance that sent the event",
    "replica": "Replica of that instance; null: unknown",
    "before": "Columns of the facet that changed, with their old values; null: none did, or the row is new",
    "after": "Columns of the facet that changed, with their new values; null: none did, or the row was deleted",
    "previous_event_seq": "last_event_seq of the row before the change; 0: there was no row",
    "previous_event_at": "last_event_at of the row before the change",
}
INDEXES = {
    "endpoint_change_endpoint_id_idx": ("endpoint_id", "committed_at"),
    "endpoint_change_commit_no_idx": ("shard", "commit_no"),
}

# Views and functions, in the order in which they can be created.
DERIVED = """
CREATE FUNCTION endpoint_change_since() RETURNS timestamptz LANGUAGE sql STABLE AS $$
SELECT CASE WHEN count(changes_since) = count(*) THEN max(changes_since) END
FROM projector_checkpoint WHERE projection = 'endpoint_state'
$$;
COMMENT ON FUNCTION endpoint_change_since() IS
    'Since when endpoint_change has every change; null if changes are not recorded';
CREATE FUNCTION endpoint_change_covers(moment timestamptz) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    since CONSTANT timestamptz := endpoint_change_since();
BEGIN
    IF since IS NULL THEN
        RAISE EXCEPTION 'changes are not recorded' USING
            ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Set PROJECTOR_CHANGES to how long to keep them, such as 7d, and restart the projector.';
    ELSIF moment IS NULL OR moment < since THEN
        RAISE EXCEPTION 'the log of changes begins at %', since USING
            ERRCODE = 'datetime_field_overflow',
            HINT = 'Ask for a later moment. What came before was not recorded, or is older than PROJECTOR_CHANGES says.';
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION endpoint_change_covers(timestamptz) IS
    'True if endpoint_change has every change since a moment, else an error that says why not';
CREATE AGGREGATE endpoint_change_merge(jsonb) (SFUNC = jsonb_concat, STYPE = jsonb, INITCOND = '{}');
COMMENT ON AGGREGATE endpoint_change_merge(jsonb) IS
    'Merges objects in their order: of several values for a key, the last one stays';
CREATE FUNCTION endpoint_change_maintain(retention interval, OUT created integer, OUT dropped integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = :schema, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    -- Several days ahead, so that a maintenance that fails for a day or two costs nothing.
    ahead CONSTANT integer := 3;
    today CONSTANT timestamptz := date_trunc('day', clock_timestamp(), 'UTC');
    day timestamptz;
    name text;
    known text[];
BEGIN
    -- Daemons that start together do not make the same partition: each waits for the others, longer than for a reader.
    PERFORM set_config('lock_timeout', '10s', true);
    PERFORM pg_advisory_xact_lock(hashtextextended('endpoint_change_maintain', 0));
    PERFORM set_config('lock_timeout', '200ms', true);
    known := ARRAY(
        SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid
        WHERE inhparent = 'endpoint_change'::regclass AND relname ~ '^endpoint_change_[0-9]{8}$'
    );
    created := 0;
    dropped := 0;
    FOR day IN SELECT today + number * interval '24 hours' FROM generate_series(0, ahead) AS number LOOP
        name := 'endpoint_change_' || to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD');
        CONTINUE WHEN name = ANY (known);
        -- Attaching a table locks out nobody, unlike CREATE TABLE … PARTITION OF, which waits for every reader.
        EXECUTE format('CREATE TABLE %I (LIKE endpoint_change INCLUDING ALL)', name);
        EXECUTE format(
            'ALTER TABLE endpoint_change ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            name, day, day + interval '24 hours'
        );
        created := created + 1;
    END LOOP;
    FOREACH name IN ARRAY known LOOP
        day := to_timestamp(right(name, 8) || ' +00', 'YYYYMMDD TZH');
        CONTINUE WHEN day + interval '24 hours' > clock_timestamp() - retention;
        -- First, so that no view relies on what is gone.
        UPDATE projector_checkpoint SET changes_since = greatest(changes_since, day + interval '24 hours')
        WHERE changes_since < day + interval '24 hours';
        BEGIN
            EXECUTE format('DROP TABLE %I', name);
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            NULL; -- somebody reads the log: the next maintenance drops the day
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION endpoint_change_maintain(interval) IS
    'Makes the partitions of the next days, and drops those that are wholly older than the retention';
REVOKE ALL ON FUNCTION endpoint_change_maintain(interval) FROM PUBLIC;
-- A change in the log has what it replaced. So the state before a change is the present one
-- with that change and every later one undone, the latest first.
CREATE VIEW endpoint_session AS
WITH change AS (
    SELECT endpoint_id, NULL::timestamptz AS committed_at, NULL::bigint AS commit_no, NULL::bigint AS position,
           NULL::timestamptz AS ended_at,
           jsonb_build_object(
               'connectivity_status', connectivity_status, 'connected_at', connected_at,
               'disconnected_at', disconnected_at, 'connected_originator', connected_originator,
               'connected_replica', connected_replica
           ) AS undo
    FROM endpoint_state
    UNION ALL
    SELECT endpoint_id, committed_at, commit_no, position, coalesce(occurred_at, committed_at),
           coalesce(before, '{"connectivity_status": "unknown", "connected_at": null, "disconnected_at": null,
                              "connected_originator": null, "connected_replica": null}')
    FROM endpoint_change
    WHERE facet = 'connectivity' AND (before IS NOT NULL OR after IS NOT NULL)
      AND committed_at >= (SELECT endpoint_change_since())
), state AS (
    SELECT endpoint_id, committed_at, commit_no, position, ended_at,
           undo ?| ARRAY['connected_at', 'connected_originator', 'connected_replica'] AS sets_connect,
           endpoint_change_merge(undo) OVER (
               PARTITION BY endpoint_id ORDER BY committed_at DESC, commit_no DESC, position DESC
               ROWS UNBOUNDED PRECEDING
           ) AS state
    FROM change
), session AS (
    SELECT endpoint_id, ended_at, state,
           lag(state) OVER (
               PARTITION BY endpoint_id ORDER BY committed_at DESC, commit_no DESC, position DESC
           ) AS next
    FROM state
    WHERE sets_connect
), ended AS (
    SELECT endpoint_id, ended_at, state, next,
           CASE WHEN state ->> 'connectivity_status' = 'disconnected' THEN 'disconnected'
                WHEN ended_at IS NULL THEN NULL
                WHEN next ->> 'connected_at' IS NOT NULL THEN 'superseded'
                ELSE 'unregistered' END AS ended_by
    FROM session
    WHERE state ->> 'connected_at' IS NOT NULL
), timed AS (
    SELECT endpoint_id, ended_by, state,
           (state ->> 'connected_at')::timestamptz AS connected_at,
           -- The time of the disconnect is missing if the row was deleted by hand since: then the next change ends it.
           CASE ended_by WHEN 'disconnected' THEN coalesce((state ->> 'disconnected_at')::timestamptz, ended_at)
                         WHEN 'superseded' THEN (next ->> 'connected_at')::timestamptz
                         WHEN 'unregistered' THEN ended_at END AS disconnected_at
    FROM ended
)
SELECT endpoint_id, connected_at, disconnected_at,
       CASE WHEN disconnected_at IS NOT NULL THEN greatest(disconnected_at - connected_at, interval '0') END AS duration,
       state ->> 'connected_originator' AS originator,
       state ->> 'connected_replica' AS replica,
       ended_by,
       (SELECT endpoint_change_since()) AS known_since
FROM timed;
COMMENT ON VIEW endpoint_session IS
    'Sessions of every endpoint: those since the log of changes begins, and the one before; see known_since';
COMMENT ON COLUMN endpoint_session.endpoint_id IS 'Endpoint id';
COMMENT ON COLUMN endpoint_session.connected_at IS 'Time of the connect';
COMMENT ON COLUMN endpoint_session.disconnected_at IS
    'Time of the disconnect, of the connect that superseded the session, or of the unregistration; null: it is open';
COMMENT ON COLUMN endpoint_session.duration IS
    'Length of the session; 0 if a clock that stepped back makes it end before it begins; null: it is open';
COMMENT ON COLUMN endpoint_session.originator IS 'Service instance that held the session';
COMMENT ON COLUMN endpoint_session.replica IS 'Replica of that instance; null: unknown';
COMMENT ON COLUMN endpoint_session.ended_by IS
    'disconnected, superseded (by a later connect) or unregistered; null: it is open';
COMMENT ON COLUMN endpoint_session.known_since IS
    'Since when the log has every change; earlier sessions may be missing. Null: changes are not recorded';
CREATE FUNCTION endpoint_flapping(since interval)
RETURNS TABLE (endpoint_id text, sessions bigint, last_connected_at timestamptz, known_since timestamptz)
LANGUAGE sql STABLE AS $$
SELECT change.endpoint_id, count(*), max((change.after ->> 'connected_at')::timestamptz),
       (SELECT endpoint_change_since())
FROM endpoint_change AS change
WHERE change.facet = 'connectivity' AND (change.after ->> 'connected_at')::timestamptz >= now() - since
  AND change.committed_at >= greatest(now() - since, (SELECT endpoint_change_since()))
GROUP BY change.endpoint_id
ORDER BY count(*) DESC, change.endpoint_id
$$;
COMMENT ON FUNCTION endpoint_flapping(interval) IS
    'Endpoints by the number of sessions that began within an interval before now, most first. '
    'Only those since known_since are counted; null: changes are not recorded';
-- Undoes what came after the moment: of several values that a column had since, the earliest is what it was.
CREATE FUNCTION endpoint_state_at(at timestamptz)
RETURNS TABLE (
    endpoint_id text,
    connectivity_status text,
    connectivity_changed_at timestamptz,
    connected_at timestamptz,
    disconnected_at timestamptz,
    connected_originator text,
    connected_replica text,
    app_version text,
    app_version_changed_at timestamptz,
    previous_app_version text,
    registered_at timestamptz,
    metadata jsonb,
    metadata_changed_at timestamptz,
    config_status text,
    config_available_id text,
    config_available_at timestamptz,
    config_applied_id text,
    config_applied_at timestamptz,
    config_pending_id text,
    last_event_seq bigint,
    last_event_at timestamptz,
    registration_status text,
    unregistered_at timestamptz,
    config_failed_id text,
    config_failed_at timestamptz,
    config_failure_code integer,
    config_failure_reason text
)
LANGUAGE sql STABLE AS $$
WITH unseen AS (
    -- What a row is before it exists.
    SELECT to_jsonb(jsonb_populate_record(
        NULL::endpoint_state,
        '{"connectivity_status": "unknown", "registration_status": "unknown", "metadata": {}, "config_status": "none"}'
    )) AS state
), known AS (
    SELECT state.endpoint_id, state FROM endpoint_state AS state
    UNION ALL
    -- Rows that a rebuild has deleted since.
    SELECT DISTINCT change.endpoint_id, NULL::endpoint_state
    FROM endpoint_change AS change
    WHERE change.verdict = 'corrected' AND change.before IS NOT NULL AND change.after IS NULL
      AND change.committed_at > at
      AND NOT EXISTS (SELECT FROM endpoint_state AS state WHERE state.endpoint_id = change.endpoint_id)
), later AS (
    SELECT change.endpoint_id,
           endpoint_change_merge(
               CASE WHEN change.before IS NOT NULL THEN change.before
                    WHEN change.after IS NOT NULL THEN (SELECT state FROM unseen)
                    ELSE '{}' END
               || jsonb_build_object(
                   'last_event_seq', change.previous_event_seq, 'last_event_at', change.previous_event_at
               )
               ORDER BY change.committed_at DESC, change.commit_no DESC, change.position DESC
           ) AS undo
    FROM endpoint_change AS change
    WHERE change.committed_at > at
    GROUP BY change.endpoint_id
)
SELECT known.endpoint_id, past.connectivity_status, past.connectivity_changed_at, past.connected_at,
       past.disconnected_at, past.connected_originator, past.connected_replica, past.app_version,
       past.app_version_changed_at, past.previous_app_version, past.registered_at, past.metadata,
       past.metadata_changed_at, past.config_status, past.config_available_id, past.config_available_at,
       past.config_applied_id, past.config_applied_at, past.config_pending_id, past.last_event_seq,
       past.last_event_at, past.registration_status, past.unregistered_at, past.config_failed_id,
       past.config_failed_at, past.config_failure_code, past.config_failure_reason
FROM known
LEFT JOIN later ON later.endpoint_id = known.endpoint_id
CROSS JOIN LATERAL jsonb_populate_record(
    known.state,
    CASE WHEN later.endpoint_id IS NULL THEN '{}'
         WHEN known.state IS NOT DISTINCT FROM NULL THEN (SELECT state FROM unseen) || later.undo
         ELSE later.undo END
) AS past
WHERE past.last_event_seq > 0 AND endpoint_change_covers(at)
$$;
COMMENT ON FUNCTION endpoint_state_at(timestamptz) IS
    'The rows of endpoint_state as they were at a moment, without the registers; '
    'an error if endpoint_change does not go back so far';
"""
BETWEEN_STATEMENTS = re.compile(r";\n(?=\n|CREATE|COMMENT|REVOKE|--|\Z)")


def upgrade() -> None:
    """Add them; no row is rewritten."""
    for name, (kind, default, comment) in CHECKPOINT_COLUMNS.items():
        op.add_column(
            "projector_checkpoint",
            sa.Column(name, kind, server_default=default, nullable=default is None, comment=comment),
        )
    op.execute(TABLE)
    op.create_table_comment("endpoint_change", TABLE_COMMENT)
    for name, comment in COLUMNS.items():
        op.execute(f"COMMENT ON COLUMN endpoint_change.{name} IS '{comment}'")
    for name, columns in INDEXES.items():
        op.create_index(name, "endpoint_change", columns)
    op.create_index(
        "endpoint_change_committed_at_idx",
        "endpoint_change",
        ["committed_at"],
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    )
    schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    for statement in BETWEEN_STATEMENTS.split(DERIVED.replace(":schema", schema).strip() + "\n"):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP FUNCTION endpoint_state_at(timestamptz)")
    op.execute("DROP FUNCTION endpoint_flapping(interval)")
    op.execute("DROP VIEW endpoint_session")
    op.execute("DROP FUNCTION endpoint_change_maintain(interval)")
    op.execute("DROP AGGREGATE endpoint_change_merge(jsonb)")
    op.execute("DROP FUNCTION endpoint_change_covers(timestamptz)")
    op.execute("DROP FUNCTION endpoint_change_since()")
    op.drop_table("endpoint_change")
    for name in CHECKPOINT_COLUMNS:
        op.drop_column("projector_checkpoint", name)
