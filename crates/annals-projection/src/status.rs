//! How every build stands: live or not, how far behind, how much is parked.

use annals_log::{Checkpoint, CheckpointError, Log, LogError};
use annals_record::{Offset, Shard};
use serde::Serialize;
use sqlx::PgPool;

use crate::manifest::{Build, BuildId, Name};

/// How a build stands.
#[derive(Debug, Clone, Serialize)]
pub struct BuildStatus {
    /// The projection.
    pub name: String,
    /// The build's number.
    pub build: i32,
    /// `running`, `building`.
    pub state: String,
    /// Whether queries read it.
    pub live: bool,
    /// By shard; shards without records and without a checkpoint are left out.
    pub shards: Vec<ShardStatus>,
    /// Records behind, over all shards.
    pub lag_records: u64,
    /// Milliseconds behind: the shard that is furthest.
    pub lag_ms: u64,
    /// Streams that are parked.
    pub parked_streams: i64,
    /// Events that wait for them.
    pub parked_events: i64,
}

/// How far one shard is folded.
#[derive(Debug, Clone, Serialize)]
pub struct ShardStatus {
    /// The shard.
    pub shard: Shard,
    /// The next offset: everything below is folded.
    pub next: Offset,
    /// The log's next offset.
    pub end: Offset,
    /// Records between them.
    pub lag_records: u64,
    /// 0 at the end; else how old the last folded record is, as its shard's clock had it.
    pub lag_ms: u64,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// Postgres.
    #[error(transparent)]
    Database(#[from] annals_store::Error),
    /// Postgres, reading checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The status of every build, by name and number. `now_ms` is the caller's clock.
///
/// # Errors
/// [`StatusError`].
pub async fn status(pool: &PgPool, log: &dyn Log, now_ms: i64) -> Result<Vec<BuildStatus>, StatusError> {
    let mut ends = Vec::new();
    for shard in log.describe().await?.shards.shards() {
        ends.push((shard, log.end(shard).await?));
    }
    let rows: Vec<(String, i32, String, bool, i64, i64)> = sqlx::query_as(
        "SELECT p.name, p.build, p.state, p.live, k.streams, k.events
         FROM annals.projection p, LATERAL (
             SELECT count(DISTINCT stream) AS streams, count(*) AS events
             FROM annals.parked WHERE projection = p.name AND build = p.build) k
         ORDER BY p.name, p.build",
    )
    .fetch_all(pool)
    .await
    .map_err(annals_store::Error::from)?;
    let mut found = Vec::new();
    for (name, build, state, live, parked_streams, parked_events) in rows {
        let shards = shards(pool, &name, build, &ends, now_ms).await?;
        found.push(BuildStatus {
            lag_records: shards.iter().map(|shard| shard.lag_records).sum(),
            lag_ms: shards.iter().map(|shard| shard.lag_ms).max().unwrap_or(0),
            name,
            build,
            state,
            live,
            shards,
            parked_streams,
            parked_events,
        });
    }
    Ok(found)
}

async fn shards(
    pool: &PgPool,
    name: &str,
    build: i32,
    ends: &[(Shard, Offset)],
    now_ms: i64,
) -> Result<Vec<ShardStatus>, StatusError> {
    let (Some(name), Some(build)) = (Name::parse(name), Build::new(build)) else {
        return Ok(Vec::new());
    };
    let stored = Checkpoint::load_all(pool, &BuildId { name, build }.reader()).await?;
    let of_shard = |&(shard, end): &(Shard, Offset)| {
        let at = stored
            .iter()
            .find(|(of, _)| *of == shard)
            .map(|(_, checkpoint)| checkpoint.head);
        let next = at.map_or(Offset::new(0), |head| head.next);
        // The log is asked first, so a checkpoint may be past what was its end then.
        let lag_records = end.get().saturating_sub(next.get());
        // Claims do not move a head's time: it is 0 before the first commit.
        let folded_ms = at.map(|head| head.time_ms).filter(|ms| *ms > 0).unwrap_or(now_ms);
        let behind_ms = now_ms.saturating_sub(folded_ms);
        let lag_ms = if lag_records == 0 {
            0
        } else {
            u64::try_from(behind_ms).unwrap_or(0)
        };
        ShardStatus {
            shard,
            next,
            end,
            lag_records,
            lag_ms,
        }
    };
    let all = ends.iter().map(of_shard);
    Ok(all
        .filter(|shard| shard.next.get() > 0 || shard.end.get() > 0)
        .collect())
}
