-- Citus inlines no function that reads distributed tables, and lets workers call no function that reads
-- tables of the coordinator. So these are in PL/pgSQL, and begin with what only the coordinator knows.
CREATE OR REPLACE FUNCTION endpoint_flapping(since interval)
RETURNS TABLE (endpoint_id text, sessions bigint, last_connected_at timestamptz, known_since timestamptz)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    log_begin CONSTANT timestamptz := endpoint_change_since();
    from_then CONSTANT timestamptz := now() - since;
BEGIN
    RETURN QUERY
    SELECT change.endpoint_id, count(*), max((change.after ->> 'connected_at')::timestamptz), log_begin
    FROM endpoint_change AS change
    WHERE change.facet = 'connectivity' AND (change.after ->> 'connected_at')::timestamptz >= from_then
      AND change.committed_at >= greatest(from_then, log_begin)
    GROUP BY change.endpoint_id
    ORDER BY count(*) DESC, change.endpoint_id;
END
$$;

CREATE OR REPLACE FUNCTION :state_at
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    -- What a row is before it exists.
    unseen CONSTANT jsonb := to_jsonb(jsonb_populate_record(
        NULL::endpoint_state,
        '{"connectivity_status": "unknown", "registration_status": "unknown", "metadata": {}, "config_status": "none"}'
    ));
BEGIN
    PERFORM endpoint_change_covers(at);
    RETURN QUERY
    WITH known AS MATERIALIZED (
        -- Workers find the rows, and those that a rebuild has deleted since, with what came after the moment.
        SELECT coalesce(to_jsonb(state), unseen) || coalesce(later.undo, '{}')
               || jsonb_build_object('endpoint_id', coalesce(state.endpoint_id, later.endpoint_id)) AS row
        FROM (SELECT * FROM endpoint_state AS state WHERE :named) AS state
        FULL JOIN (
            SELECT change.endpoint_id,
                   bool_or(change.verdict = 'corrected' AND change.before IS NOT NULL AND change.after IS NULL)
                       AS was_deleted,
                   endpoint_change_merge(
                       CASE WHEN change.before IS NOT NULL THEN change.before
                            WHEN change.after IS NOT NULL THEN unseen
                            ELSE '{}' END
                       || jsonb_build_object(
                           'last_event_seq', change.previous_event_seq, 'last_event_at', change.previous_event_at
                       )
                       ORDER BY change.committed_at DESC, change.commit_no DESC, change.position DESC
                   ) AS undo
            FROM endpoint_change AS change
            WHERE change.committed_at > at AND :named
            GROUP BY change.endpoint_id
        ) AS later ON later.endpoint_id = state.endpoint_id
        WHERE state.endpoint_id IS NOT NULL OR later.was_deleted
    )
    SELECT :columns
    FROM known CROSS JOIN LATERAL jsonb_populate_record(NULL::endpoint_state, known.row) AS past
    WHERE past.last_event_seq > 0;
END
$$;
