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
