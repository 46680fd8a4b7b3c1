//! The indexer: with a Kafka log, what fills the journal with accepted records.
//!
//! It reads shards as every reader does, and commits rows and checkpoints of all of them in one transaction. A shard that
//! gave few records is looked at again in the next round, and so are the others, so that a transaction has
//! many rows for each checkpoint that it moves; a full one is read on at once. A checkpoint is a compare-and-set, so of two
//! indexers of a shard one fails, and writes nothing.
//!
//! *Invariant (L8):* rows and the checkpoint that stands for them are written by one transaction.
//!
//! Source: 3-log.md, "Tables", "Loading a cold stream".

mod committing;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_domain::Catalog;
use annals_record::fold::Head;
use annals_record::{Offset, Shard};
use annals_store::Happened;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use metrics::counter;
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

pub use committing::{Committing, Then, Tried};

use crate::metrics as names;
use crate::postgres::INDEXER;
use crate::postgres::row::Columns;
use crate::{Batch, Checkpoint, CheckpointError, Log, LogError, ReaderError, ReaderSettings, ShardReader};

/// Rows a statement: so many that its cost is theirs.
const ROWS: usize = 4_000;
/// A shard that brings fewer records than these waits for the next round.
const FULL: usize = 256;

/// Says how many rows it inserted.
const INSERT: &str = "
WITH written AS (
    INSERT INTO annals.journal (log_offset, time_ms, epoch, version, id, shard, count, kind, prev, stream,
                                idempotency_key, traceparent, seen, value)
    SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::int[],
        $7::int[], $8::smallint[], $9::bytea[], $10::text[], $11::bytea[], $12::text[], $13::text[], $14::bytea[])
    RETURNING 1
)
SELECT count(*) FROM written";

/// How the indexer reads and writes.
#[derive(Debug, Clone, Copy)]
pub struct IndexerSettings {
    /// How each shard is read; one batch of each is in memory.
    pub reader: ReaderSettings,
    /// How often shards with few new records are looked at; their commands do not wait for it.
    pub round: Duration,
    /// The pause before something that failed is tried again.
    pub retry: Duration,
}

impl Default for IndexerSettings {
    fn default() -> Self {
        let mut reader = ReaderSettings::default();
        reader.limits.bytes = 1 << 20;
        reader.streams = 16_384;
        Self {
            reader,
            round: Duration::from_millis(50),
            retry: Duration::from_millis(250),
        }
    }
}

/// How far the journal goes.
#[derive(Debug, Clone)]
pub struct Indexed {
    /// Every accepted record below is in the journal: where a writer's tail may begin.
    pub next: Offset,
    /// Why it goes no further; none while it does.
    pub stopped: Option<Stopped>,
}

/// Why a shard is not indexed any more. Somebody has to look; other shards go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Stopped {
    /// The log, or what is in it: another history, an unreadable record, a stream with a hole (L2).
    #[error(transparent)]
    Reader(ReaderError),
    /// Another indexer has this shard: this one is a zombie.
    #[error("another indexer moved the checkpoint of shard {0}")]
    Moved(Shard),
    /// Postgres does not take these rows, and will not.
    #[error("the journal does not take the rows: {0}")]
    Database(Arc<sqlx::Error>),
}

/// Fills the journal for the shards that it is told.
pub struct Indexer {
    log: Arc<dyn Log>,
    pool: PgPool,
    catalog: Catalog,
    settings: IndexerSettings,
    progress: watch::Sender<BTreeMap<Shard, Indexed>>,
}

impl fmt::Debug for Indexer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Indexer")
            .field("log", &self.log)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A shard that is read, and in which turn: one that was taken away and given back begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn(u64);

/// What one read brought.
struct Read {
    shard: Shard,
    turn: Turn,
    /// None if it could not be opened yet.
    reader: Option<ShardReader>,
    found: Result<Option<Batch>, Stopped>,
}

impl Read {
    /// Whether it brought something, and so little that more should come before it is read.
    fn is_below(&self, full: usize) -> bool {
        let found = self.found.as_ref().ok().and_then(Option::as_ref);
        found.is_some_and(|batch| batch.records.len() < full)
    }
}

enum Failed {
    /// It may pass.
    Later(String),
    /// It will not.
    Stopped(Stopped),
}

enum NotCommitted {
    Moved(Shard),
    Database(sqlx::Error),
}

impl Indexer {
    /// An indexer of `log` into the journal of `pool`, whose database role is `annals_indexer` or more.
    pub fn new(log: Arc<dyn Log>, pool: PgPool, catalog: Catalog, settings: IndexerSettings) -> Self {
        Self {
            log,
            pool,
            catalog,
            settings,
            progress: watch::Sender::new(BTreeMap::new()),
        }
    }

    /// How far each shard is indexed; a shard is there once its checkpoint is known.
    pub fn progress(&self) -> watch::Receiver<BTreeMap<Shard, Indexed>> {
        self.progress.subscribe()
    }

    /// Runs until it is cancelled. `shards` says what to index, and may change.
    ///
    /// A shard that is stopped stays so until it is taken out and given back. Dropping this at any moment is safe:
    /// it goes on exactly where the last commit was.
    pub async fn run(&self, mut shards: watch::Receiver<BTreeSet<Shard>>, cancelled: CancellationToken) {
        let began = Instant::now();
        let full = self.settings.reader.limits.records.min(FULL);
        let mut turns: BTreeMap<Shard, Turn> = BTreeMap::new();
        let mut turn = 0;
        let mut reading = FuturesUnordered::new();
        let mut ahead: Vec<Read> = Vec::new();
        shards.mark_changed();
        loop {
            let mut reads = tokio::select! {
                biased;
                () = cancelled.cancelled() => return,
                Ok(()) = shards.changed() => {
                    let wanted = shards.borrow_and_update().clone();
                    self.leave(&mut turns, &wanted);
                    for shard in wanted {
                        turns.entry(shard).or_insert_with(|| {
                            turn += 1;
                            reading.push(self.read(shard, Turn(turn), None, began));
                            Turn(turn)
                        });
                    }
                    continue;
                }
                () = std::future::ready(()), if !ahead.is_empty() => std::mem::take(&mut ahead),
                Some(read) = reading.next() => vec![read],
            };
            while let Some(Some(read)) = reading.next().now_or_never() {
                reads.push(read);
            }
            reads.retain(|read| turns.get(&read.shard) == Some(&read.turn));
            let wait: BTreeSet<Shard> = reads
                .iter()
                .filter(|read| read.is_below(full))
                .map(|read| read.shard)
                .collect();
            let (batches, mut stopped) = sort(&mut reads);
            let commit = self.commit(batches);
            tokio::pin!(commit);
            loop {
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => return,
                    more = &mut commit => {
                        stopped.extend(more);
                        break;
                    }
                    // Reads hold connections of the pool, or are next in line for one: if they did not go on, the
                    // commit would wait for them for ever.
                    Some(read) = reading.next() => ahead.push(read),
                }
            }
            for (shard, why) in stopped {
                reads.retain(|read| read.shard != shard);
                self.stop(shard, why);
            }
            let round = self.next_round(began);
            for read in reads {
                let when = if wait.contains(&read.shard) { round } else { began };
                reading.push(self.read(read.shard, read.turn, read.reader, when));
            }
        }
    }

    /// Forgets the shards that are not wanted any more.
    fn leave(&self, turns: &mut BTreeMap<Shard, Turn>, wanted: &BTreeSet<Shard>) {
        turns.retain(|shard, _| wanted.contains(shard));
        self.progress
            .send_modify(|all| all.retain(|shard, _| wanted.contains(shard)));
    }

    fn stop(&self, shard: Shard, why: Stopped) {
        counter!(names::INDEXER_STOPPED).increment(1);
        tracing::error!(%shard, %why, "the indexer stops with this shard");
        self.progress.send_modify(|all| {
            let indexed = all.entry(shard).or_insert(Indexed {
                next: Offset::new(0),
                stopped: None,
            });
            indexed.stopped = Some(why);
        });
    }

    /// When the next round begins; all of them at the same instants, so that shards come together.
    fn next_round(&self, began: Instant) -> Instant {
        let every = self.settings.round.as_nanos().max(1);
        let (now, into) = (Instant::now(), began.elapsed().as_nanos() % every);
        now + Duration::from_nanos(u64::try_from(every - into).unwrap_or(u64::MAX))
    }

    /// One batch of a shard, looked for from `when` on, or nothing after a while.
    async fn read(&self, shard: Shard, turn: Turn, reader: Option<ShardReader>, when: Instant) -> Read {
        sleep_until(when).await;
        let mut read = Read {
            shard,
            turn,
            reader,
            found: Ok(None),
        };
        let found = match &mut read.reader {
            Some(reader) => reader.next().await.map_err(failed),
            None => match self.open(shard).await {
                Ok(reader) => {
                    read.reader = Some(reader);
                    Ok(None)
                }
                Err(failed) => Err(failed),
            },
        };
        match found {
            Ok(found) => read.found = Ok(found),
            Err(Failed::Stopped(why)) => read.found = Err(why),
            Err(Failed::Later(why)) => {
                tracing::warn!(%shard, why, "the indexer tries again");
                counter!(names::INDEXER_RETRIES).increment(1);
                sleep(self.settings.retry).await;
            }
        }
        read
    }

    async fn open(&self, shard: Shard) -> Result<ShardReader, Failed> {
        let at = match Checkpoint::load(&self.pool, INDEXER, shard).await {
            Ok(Some(at)) => at,
            Ok(None) => {
                let log = self.log.describe().await.map_err(|error| failed(error.into()))?;
                Checkpoint::genesis(Head::genesis(&log.app, shard, log.shards))
            }
            Err(error) => return Err(Failed::Later(error.to_string())),
        };
        let next = at.head.next;
        let (log, catalog) = (Arc::clone(&self.log), self.catalog.clone());
        let reader = ShardReader::open(log, catalog, shard, at, self.settings.reader)
            .await
            .map_err(failed)?;
        self.progress.send_modify(|all| {
            all.insert(shard, Indexed { next, stopped: None });
        });
        Ok(reader)
    }

    /// Commits until it is done; says which shards could not be, and why.
    async fn commit(&self, batches: Vec<Batch>) -> Vec<(Shard, Stopped)> {
        let mut committing = Committing::new(batches);
        while let Some(batches) = committing.batches() {
            let tried = self.try_commit(batches).await;
            match committing.tried(tried) {
                Then::Go => {}
                Then::Pause => sleep(self.settings.retry).await,
                Then::Compare => {
                    let is_committed = match committing.batches() {
                        Some(batches) => self.is_committed(batches).await,
                        None => false,
                    };
                    committing.compared(is_committed);
                }
            }
        }
        let (committed, stopped) = committing.finish();
        self.publish(&committed);
        stopped
    }

    async fn try_commit(&self, batches: &[Batch]) -> Tried {
        let error = match self.transact(batches).await {
            Ok(()) => return Tried::Done,
            Err(NotCommitted::Moved(shard)) => return Tried::Moved(shard),
            Err(NotCommitted::Database(error)) => annals_store::Error::from(error),
        };
        counter!(names::INDEXER_RETRIES).increment(1);
        let (transient, unsure) = (error.is_transient(), error.happened() == Happened::Unknown);
        if transient {
            tracing::warn!(%error, "the indexer tries again to commit");
        }
        Tried::Failed {
            transient,
            unsure,
            why: Stopped::Database(Arc::new(error.into_source())),
        }
    }

    /// Rows and checkpoints in one transaction; the checkpoints first, since they show that nobody else is at it.
    async fn transact(&self, batches: &[Batch]) -> Result<(), NotCommitted> {
        let moves: Vec<_> = batches
            .iter()
            .map(|batch| (batch.shard, &batch.from, &batch.to))
            .collect();
        let mut transaction = self.pool.begin().await?;
        Checkpoint::advance_all(&mut transaction, INDEXER, &moves).await?;
        let rows = insert(&mut transaction, batches).await?;
        transaction.commit().await?;
        counter!(names::INDEXER_COMMITS).increment(1);
        counter!(names::INDEXER_ROWS).increment(u64::try_from(rows).unwrap_or(0));
        Ok(())
    }

    /// Whether all of them stand where their batch ends: one transaction moves them, so one would be enough.
    async fn is_committed(&self, batches: &[Batch]) -> bool {
        for batch in batches {
            match Checkpoint::load(&self.pool, INDEXER, batch.shard).await {
                Ok(Some(at)) if at == batch.to => {}
                _ => return false,
            }
        }
        true
    }

    fn publish(&self, committed: &[Batch]) {
        if committed.is_empty() {
            return;
        }
        self.progress.send_modify(|all| {
            for batch in committed {
                if let Some(indexed) = all.get_mut(&batch.shard) {
                    indexed.next = batch.to.head.next;
                }
            }
        });
    }
}

/// The batches, and the shards that are at their end for good.
fn sort(reads: &mut [Read]) -> (Vec<Batch>, Vec<(Shard, Stopped)>) {
    let (mut batches, mut stopped) = (Vec::new(), Vec::new());
    for read in reads {
        match std::mem::replace(&mut read.found, Ok(None)) {
            Ok(batch) => batches.extend(batch),
            Err(why) => stopped.push((read.shard, why)),
        }
    }
    (batches, stopped)
}

/// Inserts the records of all batches; says how many there were.
async fn insert(connection: &mut PgConnection, batches: &[Batch]) -> Result<i64, sqlx::Error> {
    // A list and no lazy closure: only so is the future `Send`.
    let mut all = Vec::new();
    for batch in batches {
        all.extend(batch.records.iter().map(|record| (batch.shard, record)));
    }
    let mut rows = 0;
    for part in all.chunks(ROWS) {
        let mut columns = Columns::default();
        for (shard, accepted) in part {
            columns.add(*shard, accepted.offset(), accepted.record())?;
        }
        let query = sqlx::query_scalar::<_, i64>(INSERT);
        rows += columns.bind(query).fetch_one(&mut *connection).await?;
    }
    Ok(rows)
}

fn failed(error: ReaderError) -> Failed {
    match error {
        // A log that refuses (a hole in a topic) will go on to; that is an alarm as well.
        ReaderError::Log(LogError::Refused(_))
        | ReaderError::Halted(_)
        | ReaderError::Read { .. }
        | ReaderError::Version { .. } => Failed::Stopped(Stopped::Reader(error)),
        ReaderError::Log(error) => Failed::Later(error.to_string()),
    }
}

impl From<sqlx::Error> for NotCommitted {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<CheckpointError> for NotCommitted {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Moved { shard, .. } | CheckpointError::Backwards { shard, .. } => {
                Self::Moved(shard)
            }
            CheckpointError::Database(error) => Self::Database(error),
        }
    }
}
