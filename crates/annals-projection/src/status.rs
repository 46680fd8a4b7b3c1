//! How every build stands: live or not, how far behind, how much is parked.

use std::time::Duration;

use annals_log::{Checkpoint, CheckpointError, Log, LogError};
use annals_record::{Offset, Shard, ShardCount};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgPool};

use crate::manifest::{Build, BuildId, Name};
use crate::parking::{self, ParkedStream};

/// How many parked streams a status tells of; all are counted.
pub const PARKED_TOLD: u32 = 10;

/// How a build stands.
#[derive(Debug, Clone, Serialize)]
pub struct BuildStatus {
    /// The projection.
    pub name: String,
    /// The build's number.
    pub build: i32,
    /// `asked`, `building`, `running`, `retired`, `stopped` (retired, and its grace has ended), `failed`, `dropping`.
    pub state: String,
    /// Whether queries read it.
    pub live: bool,
    /// By shard; shards without records and without a checkpoint are left out.
    pub shards: Vec<ShardStatus>,
    /// Records behind, over all shards.
    pub lag_records: u64,
    /// Milliseconds behind: the shard that is furthest.
    pub lag_ms: u64,
    /// Records folded, over all shards.
    pub folded_records: u64,
    /// Of a build beside the live one: records folded a second since its tables were made.
    pub records_per_s: Option<u64>,
    /// Of such a build: in about how many seconds it will have caught up, at that rate.
    pub left_s: Option<u64>,
    /// Of a retired build: until when it is fed.
    pub fed_until: Option<DateTime<Utc>>,
    /// Of a failed build: why its tables could not be made.
    pub error: Option<String>,
    /// Streams that are parked.
    pub parked_streams: i64,
    /// Events that wait for them.
    pub parked_events: i64,
    /// The streams that were parked first, at most [`PARKED_TOLD`], and why.
    pub parked: Vec<ParkedStream>,
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
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT p.name, p.build,
                CASE WHEN p.state = 'retired' AND p.fed_until <= now() THEN 'stopped' ELSE p.state END AS state,
                p.live, extract(epoch FROM now() - p.made_at)::float8 AS seconds, p.fed_until, p.error,
                k.streams, k.events
         FROM annals.projection p, LATERAL (
             SELECT count(DISTINCT stream) AS streams, count(*) AS events
             FROM annals.parked WHERE projection = p.name AND build = p.build) k
         ORDER BY p.name, p.build",
    )
    .fetch_all(pool)
    .await
    .map_err(annals_store::Error::from)?;
    let mut found = Vec::new();
    for row in rows {
        let shards = shards(pool, &row.name, row.build, &ends, now_ms).await?;
        let lag_records = shards.iter().map(|shard| shard.lag_records).sum();
        let folded_records = shards.iter().map(|shard| shard.next.get()).sum();
        let rate = row.rate(folded_records);
        let parked = match (row.streams, row.id()) {
            (1.., Some(id)) => parking::list(pool, &id, PARKED_TOLD).await?,
            _ => Vec::new(),
        };
        found.push(BuildStatus {
            lag_records,
            lag_ms: shards.iter().map(|shard| shard.lag_ms).max().unwrap_or(0),
            folded_records,
            records_per_s: rate,
            left_s: rate.and_then(|rate| lag_records.checked_div(rate)),
            name: row.name,
            build: row.build,
            state: row.state,
            live: row.live,
            fed_until: row.fed_until,
            error: row.error,
            shards,
            parked_streams: row.streams,
            parked_events: row.events,
            parked,
        });
    }
    Ok(found)
}

#[derive(sqlx::FromRow)]
struct Row {
    name: String,
    build: i32,
    state: String,
    live: bool,
    seconds: Option<f64>,
    fed_until: Option<DateTime<Utc>>,
    error: Option<String>,
    streams: i64,
    events: i64,
}

impl Row {
    fn id(&self) -> Option<BuildId> {
        Some(BuildId {
            name: Name::parse(&self.name)?,
            build: Build::new(self.build)?,
        })
    }

    /// Records a second of a build that is being built.
    fn rate(&self, folded: u64) -> Option<u64> {
        let seconds = self.seconds.filter(|seconds| *seconds > 0.0)?;
        let ms = Duration::try_from_secs_f64(seconds).ok()?.as_millis();
        let ms = u64::try_from(ms).ok().filter(|ms| *ms > 0)?;
        (self.state == "building").then(|| folded.saturating_mul(1_000) / ms)
    }
}

/// How old the oldest record is that the live build of each projection has not folded, in ms; 0 without any. It
/// knows what the journal has: with Kafka, what the indexer has read.
///
/// # Errors
/// Postgres.
pub async fn live_lag_ms(
    pool: &PgPool,
    shards: ShardCount,
    now_ms: i64,
) -> Result<Vec<(String, u64)>, annals_store::Error> {
    let unfolded = annals_log::fragment::unfolded("'projection/' || p.name || '/' || p.build", "$1");
    let sql = format!("SELECT p.name, {unfolded} {}", crate::fragment::live_relation());
    let shards = i32::try_from(shards.get()).unwrap_or(i32::MAX);
    let rows: Vec<(String, Option<String>)> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(shards)
        .fetch_all(pool)
        .await?;
    let lag = |text: &str| {
        let times = text.split(',').filter_map(|record| record.rsplit(':').next());
        let oldest = times.filter_map(|time| time.parse::<i64>().ok()).min();
        oldest.map_or(0, |oldest| {
            u64::try_from(now_ms.saturating_sub(oldest)).unwrap_or(0)
        })
    };
    Ok(rows
        .into_iter()
        .map(|(name, unfolded)| (name, unfolded.as_deref().map_or(0, lag)))
        .collect())
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
