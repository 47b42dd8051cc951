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
