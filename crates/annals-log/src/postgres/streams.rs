//! Journal and snapshots by stream, in Postgres ([`PgStreamStore`]).

use std::collections::HashMap;
use std::sync::Arc;

use annals_record::fold::Head;
use annals_record::record::Record;
use annals_record::{AppName, Hash32, Offset, Shard, ShardCount, Version, hash};
use async_trait::async_trait;
use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::{row, snapshot};
use crate::checkpoint::{decoded, encoded, head_of_row, shard_of, signed_shard};
use crate::{Checkpoint, CheckpointError, LoadRequest, Loaded, Snapshot, StoreError, StreamStore};

/// The reader that fills the journal in Kafka mode.
pub const INDEXER: &str = "indexer";

/// What says how far the journal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalHead {
    /// `log_head`: the journal is the log.
    LogHead,
    /// The checkpoint of the reader [`INDEXER`]: the log is elsewhere.
    Indexer,
}

/// Journal and snapshots in Postgres.
#[derive(Debug, Clone)]
pub struct PgStreamStore {
    pub(super) pool: PgPool,
    app: AppName,
    pub(super) shards: ShardCount,
    head: JournalHead,
}

/// One row a stream, with its snapshot and how far the journal goes, then one a journal row. `OFFSET 0` keeps the
/// planner from reading the whole journal where it knows nothing of the tables yet.
macro_rules! load {
    ($next:literal) => {
        concat!(
            "WITH q AS (
    SELECT q.n, q.shard, q.stream, s.log_offset AS at, s.version, s.state
    FROM UNNEST($1::int[], $2::text[], $3::bytea[], $4::bool[]) WITH ORDINALITY
         AS q(shard, stream, fingerprint, in_full, n)
    LEFT JOIN LATERAL (
        SELECT k.log_offset, k.version, k.state FROM annals.snapshot k
        WHERE k.stream = q.stream AND k.fingerprint = q.fingerprint AND NOT q.in_full OFFSET 0
    ) s ON true
)
SELECT q.n, true AS head, q.at AS log_offset, NULL::bigint AS time_ms, ",
            $next,
            " AS epoch, q.version, NULL::uuid AS id, NULL::int AS count, NULL::smallint AS kind, NULL::bytea AS prev,
    NULL::text AS stream, NULL::bytea AS idempotency_key, NULL::text AS traceparent, NULL::text AS seen,
    q.state AS value
FROM q
UNION ALL
SELECT q.n, false, j.log_offset, j.time_ms, j.epoch, j.version, j.id, j.count, j.kind, j.prev, j.stream,
    j.idempotency_key, j.traceparent, j.seen, j.value
FROM q, LATERAL (
    SELECT * FROM annals.journal j
    WHERE j.stream = q.stream AND j.log_offset >= COALESCE(q.at, 0) OFFSET 0
) j
ORDER BY 1, 2 DESC, 3"
        )
    };
}

const LOAD_BY_LOG_HEAD: &str = load!("(SELECT h.next_offset FROM annals.log_head h WHERE h.shard = q.shard)");
const LOAD_BY_INDEXER: &str =
    load!("(SELECT c.next_offset FROM annals.checkpoint c WHERE c.reader = 'indexer' AND c.shard = q.shard)");

/// An older snapshot never replaces a newer one.
const SAVE: &str = "
INSERT INTO annals.snapshot AS kept (stream, log_offset, version, fingerprint, state, bytes)
SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[], $6::int[])
ON CONFLICT (stream) DO UPDATE
SET log_offset = EXCLUDED.log_offset, version = EXCLUDED.version, fingerprint = EXCLUDED.fingerprint,
    state = EXCLUDED.state, bytes = EXCLUDED.bytes, taken_at = now()
WHERE kept.log_offset <= EXCLUDED.log_offset";

impl PgStreamStore {
    /// The journal of `app` in the database of `pool`, which must be the primary.
    pub fn new(pool: PgPool, app: AppName, shards: ShardCount, head: JournalHead) -> Self {
        Self {
            pool,
            app,
            shards,
            head,
        }
    }

    pub(super) fn genesis(&self, shard: Shard) -> Hash32 {
        hash::genesis(&self.app, shard, self.shards)
    }

    /// A snapshot of a form that this program does not know is passed over: its stream is loaded again in full.
    async fn load_or_reload(&self, requests: &[LoadRequest]) -> Result<Vec<Loaded>, sqlx::Error> {
        let (mut loaded, torn) = self.load_all(requests).await?;
        if torn.is_empty() {
            return Ok(loaded);
        }
        let again = torn.iter().filter_map(|index| requests.get(*index).cloned());
        let again: Vec<_> = again
            .map(|request| LoadRequest {
                in_full: true,
                ..request
            })
            .collect();
        let (full, _) = self.load_all(&again).await?;
        for (index, full) in torn.into_iter().zip(full) {
            loaded[index] = full;
        }
        Ok(loaded)
    }

    /// What was loaded, and which of it rests on a snapshot that does not read.
    async fn load_all(&self, requests: &[LoadRequest]) -> Result<(Vec<Loaded>, Vec<usize>), sqlx::Error> {
        let (mut shards, mut streams) = (Vec::new(), Vec::new());
        let (mut fingerprints, mut in_full) = (Vec::new(), Vec::new());
        for request in requests {
            shards.push(signed_shard(request.shard)?);
            streams.push(request.stream.as_str());
            fingerprints.push(request.fingerprint.as_bytes().as_slice());
            in_full.push(request.in_full);
        }
        let statement = match self.head {
            JournalHead::LogHead => LOAD_BY_LOG_HEAD,
            JournalHead::Indexer => LOAD_BY_INDEXER,
        };
        let mut rows = sqlx::query(statement)
            .bind(shards)
            .bind(streams)
            .bind(fingerprints)
            .bind(in_full)
            .fetch(&self.pool);
        let (mut loaded, mut torn) = (Vec::<Loaded>::with_capacity(requests.len()), Vec::new());
        while let Some(row) = rows.try_next().await? {
            // Rows come in the order of the requests, each one's head first.
            if row.try_get("head")? {
                let request = requests.get(loaded.len()).ok_or(sqlx::Error::RowNotFound)?;
                let head = head(&row, request)?;
                if head.is_none() {
                    torn.push(loaded.len());
                }
                loaded.push(head.unwrap_or(Loaded {
                    snapshot: None,
                    rows: Vec::new(),
                    journal_next: Offset::new(0),
                }));
            } else if let (Some(request), Some(last)) =
                (requests.get(loaded.len().saturating_sub(1)), loaded.last_mut())
            {
                let (offset, record) = row::read(&row, self.genesis(request.shard))?;
                last.rows.push((offset, Arc::new(record)));
            }
        }
        if loaded.len() == requests.len() {
            Ok((loaded, torn))
        } else {
            Err(sqlx::Error::RowNotFound)
        }
    }

    async fn journal_row(&self, shard: Shard, offset: Offset) -> Result<Option<Arc<Record>>, sqlx::Error> {
        let row = sqlx::query("SELECT * FROM annals.journal WHERE shard = $1 AND log_offset = $2")
            .bind(signed_shard(shard)?)
            .bind(encoded(i64::try_from(offset))?)
            .fetch_optional(&self.pool)
            .await?;
        let record = row.map(|row| row::read(&row, self.genesis(shard))).transpose()?;
        Ok(record.map(|(_, record)| Arc::new(record)))
    }

    async fn log_heads(&self, shards: &[Shard]) -> Result<Vec<Checkpoint>, sqlx::Error> {
        let numbers: Vec<i32> = shards
            .iter()
            .map(|shard| signed_shard(*shard))
            .collect::<Result<_, _>>()?;
        let rows = sqlx::query("SELECT * FROM annals.log_head WHERE shard = ANY($1)")
            .bind(numbers)
            .fetch_all(&self.pool)
            .await?;
        let mut known = HashMap::with_capacity(rows.len());
        for row in &rows {
            let (head, last_hash) = head_of_row(row)?;
            let checkpoint = Checkpoint {
                head,
                last_hash,
                last_ghost: false,
            };
            known.insert(shard_of(row)?, checkpoint);
        }
        let at = |shard: &Shard| known.get(shard).cloned().ok_or(sqlx::Error::RowNotFound);
        shards.iter().map(at).collect()
    }

    async fn save(&self, snapshots: Vec<Snapshot>) -> Result<(), sqlx::Error> {
        // One statement may touch a row once: of two snapshots of a stream the newer one counts.
        let mut newest: HashMap<_, Snapshot> = HashMap::with_capacity(snapshots.len());
        for snapshot in snapshots {
            let kept = newest.get(&snapshot.stream);
            if kept.is_none_or(|kept| kept.offset <= snapshot.offset) {
                newest.insert(snapshot.stream.clone(), snapshot);
            }
        }
        let mut snapshots: Vec<Snapshot> = newest.into_values().collect();
        if snapshots.is_empty() {
            return Ok(());
        }
        // Rows are locked in one order by all.
        snapshots.sort_by(|a, b| a.stream.cmp(&b.stream));
        let (mut offsets, mut versions, mut states, mut bytes) = (vec![], vec![], vec![], vec![]);
        for snapshot in &snapshots {
            let state = snapshot::encode(&snapshot.keys, &snapshot.state);
            offsets.push(encoded(i64::try_from(snapshot.offset))?);
            versions.push(encoded(i64::try_from(snapshot.version))?);
            bytes.push(encoded(i32::try_from(state.len()))?);
            states.push(state);
        }
        let streams: Vec<&str> = snapshots.iter().map(|kept| kept.stream.as_str()).collect();
        let fingerprints: Vec<&[u8]> = snapshots.iter().map(|kept| kept.fingerprint.as_ref()).collect();
        sqlx::query(SAVE)
            .bind(streams)
            .bind(offsets)
            .bind(versions)
            .bind(fingerprints)
            .bind(states)
            .bind(bytes)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// The first row of a stream: its snapshot in the columns of a record, and in `epoch` how far the journal goes.
/// `None` if there is a snapshot of another form.
fn head(row: &PgRow, request: &LoadRequest) -> Result<Option<Loaded>, sqlx::Error> {
    let snapshot = match row.try_get::<Option<i64>, _>("log_offset")? {
        None => None,
        Some(offset) => {
            let offset: Offset = decoded(offset.try_into())?;
            let version: Version = decoded(row.try_get::<i64, _>("version")?.try_into())?;
            let Some((keys, state)) = snapshot::decode(row.try_get("value")?) else {
                return Ok(None);
            };
            Some(Snapshot {
                stream: request.stream.clone(),
                offset,
                version,
                fingerprint: request.fingerprint,
                state,
                keys,
            })
        }
    };
    let next = row.try_get::<Option<i64>, _>("epoch")?.unwrap_or(0);
    Ok(Some(Loaded {
        snapshot,
        rows: Vec::new(),
        journal_next: decoded(next.try_into())?,
    }))
}

#[async_trait]
impl StreamStore for PgStreamStore {
    async fn load(&self, requests: &[LoadRequest]) -> Result<Vec<Loaded>, StoreError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.load_or_reload(requests).await.map_err(store_error)
    }

    async fn record_at(&self, shard: Shard, offset: Offset) -> Result<Option<Arc<Record>>, StoreError> {
        self.journal_row(shard, offset).await.map_err(store_error)
    }

    async fn checkpoints(&self, shards: &[Shard]) -> Result<Vec<Checkpoint>, StoreError> {
        match self.head {
            JournalHead::LogHead => self.log_heads(shards).await.map_err(store_error),
            JournalHead::Indexer => {
                let all = Checkpoint::load_all(&self.pool, INDEXER).await;
                let all = all.map_err(|error| match error {
                    CheckpointError::Database(error) => store_error(error),
                    error => StoreError::Corrupt(error.to_string()),
                })?;
                let known: HashMap<Shard, Checkpoint> = all.into_iter().collect();
                let at = |shard: &Shard| match known.get(shard) {
                    Some(checkpoint) => checkpoint.clone(),
                    None => Checkpoint::genesis(Head::at_genesis(self.genesis(*shard))),
                };
                Ok(shards.iter().map(at).collect())
            }
        }
    }

    async fn save_snapshots(&self, snapshots: Vec<Snapshot>) -> Result<(), StoreError> {
        self.save(snapshots).await.map_err(store_error)
    }

    async fn drop_snapshots(&self, category: &str) -> Result<u64, StoreError> {
        // A stream id is the category, a hyphen and a key, compared by bytes; a full stop follows the hyphen.
        let dropped = sqlx::query("DELETE FROM annals.snapshot WHERE stream >= $1 AND stream < $2")
            .bind(format!("{category}-"))
            .bind(format!("{category}."))
            .execute(&self.pool)
            .await
            .map_err(store_error)?;
        Ok(dropped.rows_affected())
    }
}

/// What does not decode is there and wrong; all else may be better later.
pub(super) fn store_error(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}
