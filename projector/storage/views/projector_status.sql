-- The lock is that of the leader; see storage/locks.py.
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
) AS leader;

COMMENT ON VIEW projector_status IS 'Progress and freshness of the projection';
COMMENT ON COLUMN projector_status.projection IS 'Name of the projection, which is the name of its table';
COMMENT ON COLUMN projector_status.shard IS 'Shard of the endpoints; 0 if there is only one';
COMMENT ON COLUMN projector_status.stream IS 'JetStream stream that is folded';
COMMENT ON COLUMN projector_status.position IS
    'Stream sequence up to which every message is folded, parked or skipped';
COMMENT ON COLUMN projector_status.last_event_stored_at IS 'When the broker stored the message at the position';
COMMENT ON COLUMN projector_status.last_commit_at IS 'When the position last moved';
COMMENT ON COLUMN projector_status.lag_messages IS 'Messages not yet folded, as the leader last saw';
COMMENT ON COLUMN projector_status.lag_seen_at IS 'When the leader saw that; updated every few seconds';
COMMENT ON COLUMN projector_status.active IS 'Whether there is a leader';
COMMENT ON COLUMN projector_status.active_since IS 'When the leader took the lead; null: there is none';
COMMENT ON COLUMN projector_status.dead_letters IS 'Dead letters neither resolved nor discarded';
