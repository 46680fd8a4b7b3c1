-- Moves checkpoints of one reader: the rows that stand where the caller left them, and those that have not begun. Gives the
-- shards that were moved. A row that begins while it is there already conflicts and is not given, unless it was moved.
--
-- A function only for its plan: it is called many times a second on connections that plan every statement anew
-- (`PoolSettings::cached_plans`), and planning took longer than moving. The plan that is kept reads by the primary key
-- whatever the statistics say, so it cannot become wrong.
CREATE FUNCTION annals.advance_checkpoints(
    of_reader text, of_shards int[],
    f_next bigint[], f_accepted bigint[], f_epoch bigint[], f_chain bytea[], f_time bigint[], f_closed bool[],
    f_hash bytea[], f_ghost bool[],
    t_next bigint[], t_accepted bigint[], t_epoch bigint[], t_chain bytea[], t_time bigint[], t_closed bool[],
    t_hash bytea[], t_ghost bool[]
) RETURNS int[] LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
    done int[];
BEGIN
    WITH moves AS MATERIALIZED (
        SELECT * FROM UNNEST(of_shards, f_next, f_accepted, f_epoch, f_chain, f_time, f_closed, f_hash, f_ghost,
                             t_next, t_accepted, t_epoch, t_chain, t_time, t_closed, t_hash, t_ghost)
        AS m(shard, old_next, old_accepted, old_epoch, old_chain, old_time, old_closed, old_hash, old_ghost,
             new_next, new_accepted, new_epoch, new_chain, new_time, new_closed, new_hash, new_ghost)
    ), moved AS (
        UPDATE annals.checkpoint c
        SET next_offset = m.new_next, accepted = m.new_accepted, epoch = m.new_epoch, chain = m.new_chain,
            time_ms = m.new_time, closed = m.new_closed, last_hash = m.new_hash, last_ghost = m.new_ghost,
            updated_at = now()
        FROM moves m
        WHERE c.reader = of_reader AND c.shard = m.shard AND c.next_offset = m.old_next
          AND c.accepted = m.old_accepted AND c.epoch = m.old_epoch AND c.chain = m.old_chain
          AND c.time_ms = m.old_time AND c.closed = m.old_closed
          AND c.last_hash IS NOT DISTINCT FROM m.old_hash AND c.last_ghost = m.old_ghost
        RETURNING c.shard
    ), begun AS (
        INSERT INTO annals.checkpoint AS c (reader, shard, next_offset, accepted, epoch, chain, time_ms, closed,
                                            last_hash, last_ghost)
        SELECT of_reader, m.shard, m.new_next, m.new_accepted, m.new_epoch, m.new_chain, m.new_time, m.new_closed,
               m.new_hash, m.new_ghost
        FROM moves m WHERE m.old_next = 0
        ON CONFLICT ON CONSTRAINT checkpoint_pkey DO NOTHING
        RETURNING c.shard
    )
    SELECT array_agg(either.shard) INTO done
    FROM (SELECT moved.shard FROM moved UNION ALL SELECT begun.shard FROM begun) AS either;
    RETURN COALESCE(done, '{}');
END
$$;
