//! Pieces of SQL about checkpoints and the journal, for statements of other crates that must have one snapshot with
//! their own rows. What is put in is SQL made by the program, never a caller's value.

/// `(SELECT shards, nexts …) AS {alias}`: one line with the shards (`int[]`) of a reader's checkpoints and their next
/// offsets (`bigint[]`), in no order, null without any. `reader` is an expression.
#[must_use]
pub fn checkpoints(reader: &str, alias: &str) -> String {
    format!(
        "(SELECT array_agg(c.shard) AS shards, array_agg(c.next_offset) AS nexts \
         FROM annals.checkpoint AS c WHERE c.reader = {reader}) AS {alias}"
    )
}

/// A scalar: `shard:offset:time_ms,…` of the oldest record in the journal that a reader has not folded, for each of
/// the first `shards` shards that has one, null without any. One index probe a shard. Both are expressions.
#[must_use]
pub fn unfolded(reader: &str, shards: &str) -> String {
    format!(
        "(SELECT string_agg(s.shard || ':' || j.log_offset || ':' || j.time_ms, ',') \
         FROM generate_series(0, {shards} - 1) AS s(shard) \
         LEFT JOIN annals.checkpoint c ON c.reader = {reader} AND c.shard = s.shard \
         CROSS JOIN LATERAL (SELECT j.log_offset, j.time_ms FROM annals.journal j \
           WHERE j.shard = s.shard AND j.log_offset >= coalesce(c.next_offset, 0) \
           ORDER BY j.log_offset LIMIT 1) AS j)"
    )
}
