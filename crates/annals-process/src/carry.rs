//! What a copy of the log takes along of process managers: they have sent commands and asked the outside world, which
//! reading the log again from its beginning would do again.

use std::collections::BTreeMap;

use annals_record::{Offset, Shard};
use sqlx::PgConnection;

/// How many rows were carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Carried {
    /// Instances.
    pub instances: u64,
    /// Rows of the outbox.
    pub outbox: u64,
    /// Timers.
    pub timers: u64,
}

/// Why nothing was carried.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// What waits for parked instances stands at offsets of the source, which mean nothing in the copy.
    #[error(
        "{0} records wait for parked instances of processes; start the source's nodes again, `processes resume` the \
         instances (`processes list` names them), then copy again"
    )]
    Held(i64),
    /// Postgres.
    #[error(transparent)]
    Database(#[from] annals_store::Error),
}

/// Carries instances, outbox and timers to the database of a copy whose shards end at `ends`.
///
/// What had to be read up to some offset before it goes on must be read up to the copy's own end: offsets of the
/// source mean nothing there, and the end is never too early.
///
/// # Errors
/// [`CarryError`].
pub async fn carry(
    from: &mut PgConnection,
    to: &mut PgConnection,
    ends: &BTreeMap<Shard, Offset>,
) -> Result<Carried, CarryError> {
    let held: i64 = sqlx::query_scalar("SELECT count(*) FROM annals.process_held")
        .fetch_one(&mut *from)
        .await
        .map_err(annals_store::Error::from)?;
    if held > 0 {
        return Err(CarryError::Held(held));
    }
    let carried = Carried {
        instances: annals_store::carry::table(from, to, "process_instance").await?,
        outbox: annals_store::carry::table(from, to, "process_outbox").await?,
        timers: annals_store::carry::table(from, to, "timer").await?,
    };
    let ends: BTreeMap<u32, u64> = ends.iter().map(|(shard, end)| (shard.get(), end.get())).collect();
    let ends = serde_json::to_string(&ends).expect("numbers can be written");
    // Only shards that were waited for: another one need not be read at all.
    for statement in [TRANSLATE_OUTBOX, TRANSLATE_TIMERS] {
        sqlx::query(statement)
            .bind(&ends)
            .execute(&mut *to)
            .await
            .map_err(annals_store::Error::from)?;
    }
    Ok(carried)
}

const TRANSLATE_OUTBOX: &str = "UPDATE annals.process_outbox SET sent_until = (SELECT jsonb_object_agg(w.key, $1::jsonb -> w.key) \
     FROM jsonb_each(sent_until) AS w) WHERE sent_until IS NOT NULL AND sent_until <> '{}'";
const TRANSLATE_TIMERS: &str = "UPDATE annals.timer SET waits = (SELECT jsonb_object_agg(w.key, $1::jsonb -> w.key) \
     FROM jsonb_each(waits) AS w) WHERE waits IS NOT NULL AND waits <> '{}'";
