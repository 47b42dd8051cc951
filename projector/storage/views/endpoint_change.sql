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
