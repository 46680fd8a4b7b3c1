//! The log in Postgres: the table `journal` is the log, and `log_head` says where each shard ends.
//!
//! One statement moves heads and inserts rows, so an append is compared with the whole head: an offset alone is no
//! fence, since a zombie's second pipelined append may fit the end again after another's claim. Hence the journal
//! holds accepted records only. Source: the log's design, "`Log`".

mod appender;
mod batch;
mod durability;
mod follower;
mod history;
mod identity;
pub(crate) mod row;
mod snapshot;
mod streams;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annals_record::fold::Head;
use annals_record::record::{Record, Slot};
use annals_record::{AppName, Generation, Hash32, Offset, Shard, ShardCount, hash};
use annals_store::ErrorClass;
use annals_store::notify::{Listener, Notifier};
use async_trait::async_trait;
use futures_util::TryStreamExt;
use sqlx::PgPool;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

pub use identity::LogIdentity;
pub use streams::{INDEXER, JournalHead, PgStreamStore};

use crate::checkpoint::{encoded, signed_shard};
use crate::memory::no_shard;
use crate::metrics as names;
use crate::recent::{Recent, Taken};
use crate::{Appended, Appending, Description, Hashed, Log, LogError, LogKind, Placed, ReadLimits};
use appender::Appender;
use batch::{Batch, Bounds, Job};
use follower::Follower;

/// The channel of notifications: the key is a shard, the value its end.
pub const CHANNEL: &str = "annals_log";

/// How the Postgres log works.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// The largest record, in bytes of key, value and headers.
    pub record_bytes: usize,
    /// At most so many rows in one statement.
    pub batch_rows: usize,
    /// At most so many bytes of records in one statement (one append may exceed it).
    pub batch_bytes: usize,
    /// Appends that would make more bytes than this wait are not written.
    pub queue_bytes: usize,
    /// How many bytes of each shard's newest records are kept for readers of this process.
    pub recent_bytes: usize,
    /// How long the server may take over one statement before its outcome is unknown.
    pub patience: Duration,
    /// How often the ends of the shards are read, whatever is notified.
    pub poll: Duration,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            record_bytes: 900 << 10,
            batch_rows: 2_048,
            batch_bytes: 8 << 20,
            queue_bytes: 64 << 20,
            recent_bytes: 8 << 20,
            patience: Duration::from_secs(30),
            poll: Duration::from_secs(1),
        }
    }
}

/// How a process hears of other processes' appends sooner than by polling; both may be missing.
#[derive(Debug, Default)]
pub struct Wakes {
    /// Tells others of this process's appends.
    pub notifier: Option<Notifier>,
    /// Hears of theirs; listens to [`CHANNEL`].
    pub listener: Option<Listener>,
}

/// The log of one app in one database.
pub struct PostgresLog {
    shared: Arc<Shared>,
}

/// What the log's tasks do. The owner of the log runs it as a task; it ends once the log is dropped and everything
/// that was handed over has its answer.
#[must_use = "without it nothing is appended"]
pub struct PostgresTask {
    appender: Appender,
    follower: Follower,
}

struct Shared {
    pool: PgPool,
    identity: LogIdentity,
    /// Whether it is the target of a copy.
    unfinished: bool,
    genesis: Box<[Hash32]>,
    settings: PostgresSettings,
    recent: Recent,
    notifier: Option<Notifier>,
    queue: Mutex<Queue>,
    queued: Notify,
    closed: Notify,
    /// What a stored record weighs about: how many are fetched at once follows from it.
    record_bytes: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    closed: bool,
}

impl fmt::Debug for PostgresLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLog")
            .field("identity", &self.shared.identity)
            .finish_non_exhaustive()
    }
}

impl Drop for PostgresLog {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.queued.notify_one();
        self.shared.closed.notify_one();
    }
}

impl PostgresLog {
    /// Makes an empty log in a migrated database; nothing changes if it is there already.
    ///
    /// # Errors
    /// [`LogError::Refused`] if the database holds another log.
    pub async fn create(pool: &PgPool, app: &AppName, shards: ShardCount) -> Result<(), LogError> {
        let identity = LogIdentity {
            app: app.clone(),
            shards,
            generation: Generation::FIRST,
            kind: LogKind::Postgres,
        };
        identity.create(pool).await
    }

    /// Opens the log of `app`, and gives the task that the caller must run beside it.
    ///
    /// # Errors
    /// [`LogError::Refused`] if the database holds no log, or that of another app, or another number of `shards`
    /// than asked for.
    pub async fn open(
        pool: PgPool,
        app: &AppName,
        shards: Option<ShardCount>,
        settings: PostgresSettings,
        wakes: Wakes,
    ) -> Result<(Self, PostgresTask), LogError> {
        let none = || LogError::Refused(format!("this database holds no log yet, `{app}`'s neither"));
        let identity = LogIdentity::load(&pool).await?.ok_or_else(none)?;
        let wanted = shards.unwrap_or(identity.shards);
        if identity.app != *app || identity.kind != LogKind::Postgres || identity.shards != wanted {
            return Err(identity.refused());
        }
        Self::begin(pool, identity, false, settings, wakes).await
    }

    /// Opens the target of a copy that [`LogIdentity::begin_copy`] began, as [`Self::open`] does.
    ///
    /// # Errors
    /// [`LogError::Refused`] if it is not that.
    pub async fn open_copy(
        pool: PgPool,
        identity: LogIdentity,
        settings: PostgresSettings,
    ) -> Result<(Self, PostgresTask), LogError> {
        match LogIdentity::load_any(&pool).await? {
            Some((found, true)) if found == identity => {}
            _ => return Err(identity.refused()),
        }
        Self::begin(pool, identity, true, settings, Wakes::default()).await
    }

    async fn begin(
        pool: PgPool,
        identity: LogIdentity,
        unfinished: bool,
        settings: PostgresSettings,
        wakes: Wakes,
    ) -> Result<(Self, PostgresTask), LogError> {
        let app = &identity.app;
        let recent = Recent::new(identity.shards, settings.recent_bytes);
        for (shard, end) in follower::ends(&pool).await.map_err(|error| log_error(&error))? {
            recent.raise(shard, end);
        }
        let count = identity.shards;
        let shared = Arc::new(Shared {
            pool,
            genesis: count
                .shards()
                .map(|shard| hash::genesis(app, shard, count))
                .collect(),
            identity,
            unfinished,
            settings,
            recent,
            notifier: wakes.notifier,
            queue: Mutex::default(),
            queued: Notify::new(),
            closed: Notify::new(),
            record_bytes: AtomicUsize::new(1_024),
        });
        let task = PostgresTask {
            appender: Appender {
                shared: Arc::clone(&shared),
            },
            follower: Follower {
                shared: Arc::clone(&shared),
                listener: wakes.listener,
            },
        };
        Ok((Self { shared }, task))
    }

    /// Which log it is.
    pub fn identity(&self) -> &LogIdentity {
        &self.shared.identity
    }
}

impl PostgresTask {
    /// Appends and follows until the log is dropped.
    pub async fn run(self) {
        tokio::join!(self.appender.run(), self.follower.run());
    }
}

impl fmt::Debug for PostgresTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresTask")
    }
}

#[async_trait]
impl Log for PostgresLog {
    fn append(&self, shard: Shard, at: Head, records: Vec<Arc<Record>>) -> Appending {
        self.append_hashed(shard, at, records.into_iter().map(Hashed::of).collect())
    }

    fn append_hashed(&self, shard: Shard, at: Head, records: Vec<Hashed>) -> Appending {
        let answered = self.shared.enqueue(shard, at, records);
        Box::pin(async move {
            match answered {
                Ok(answer) => answer.await.unwrap_or_else(|_| {
                    Appended::Unknown(LogError::Unavailable("the appender has ended".to_owned()))
                }),
                Err(error) => Appended::NotWritten(error),
            }
        })
    }

    async fn read(
        &self,
        shard: Shard,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Vec<Arc<Placed>>, LogError> {
        let shared = &self.shared;
        let genesis = shared.genesis(shard)?;
        let until = Instant::now() + limits.wait;
        loop {
            if let Some(recent) = shared.recent.read(shard, from, &limits) {
                ::metrics::counter!(names::READS_RECENT).increment(1);
                return Ok(recent);
            }
            if from > shared.recent.end(shard) {
                let end = self.end(shard).await?;
                if from > end {
                    return Err(LogError::BeyondEnd { shard, end, from });
                }
            }
            if from < shared.recent.end(shard) {
                let stored = shared.stored(shard, from, limits, genesis).await?;
                if !stored.is_empty() {
                    shared.recent.push(shard, &stored);
                    return Ok(stored);
                }
                // It was there: the log has been cut, or a row is missing.
                let end = self.end(shard).await?;
                if end > from {
                    return Err(hole(shard, from));
                }
                shared.recent.reset(shard, end);
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if !shared.recent.wait(shard, from, left).await {
                return Ok(Vec::new());
            }
        }
    }

    async fn end(&self, shard: Shard) -> Result<Offset, LogError> {
        self.shared.genesis(shard)?;
        let read = async {
            let end: i64 = sqlx::query_scalar("SELECT next_offset FROM annals.log_head WHERE shard = $1")
                .bind(signed_shard(shard)?)
                .fetch_one(&self.shared.pool)
                .await?;
            crate::checkpoint::decoded(Offset::try_from(end))
        };
        let end = read.await.map_err(|error| log_error(&error))?;
        self.shared.recent.raise(shard, end);
        Ok(end)
    }

    async fn describe(&self) -> Result<Description, LogError> {
        let (durability, settings) = durability::describe(&self.shared.pool).await?;
        let identity = &self.shared.identity;
        Ok(Description {
            kind: identity.kind,
            app: identity.app.clone(),
            shards: identity.shards,
            generation: identity.generation,
            durability,
            settings,
        })
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each change of the queue is one call that cannot panic half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn genesis(&self, shard: Shard) -> Result<Hash32, LogError> {
        let index = usize::try_from(shard.get()).unwrap_or(usize::MAX);
        let genesis = self.genesis.get(index).copied();
        genesis.ok_or_else(|| no_shard(shard, self.identity.shards))
    }

    /// Puts an append behind all that were handed over before; its order is that of the calls.
    fn enqueue(
        &self,
        shard: Shard,
        at: Head,
        records: Vec<Hashed>,
    ) -> Result<oneshot::Receiver<Appended>, LogError> {
        self.genesis(shard)?;
        let mut bytes = 0;
        for hashed in &records {
            let stored = hashed.record.stored_bytes();
            if stored > self.settings.record_bytes {
                let most = self.settings.record_bytes;
                return Err(LogError::Refused(format!(
                    "a record of {stored} bytes, and {most} are allowed"
                )));
            }
            bytes += stored;
        }
        let (answer, answered) = oneshot::channel();
        let mut queue = self.queue();
        if queue.closed {
            return Err(LogError::Unavailable("the log is closed".to_owned()));
        }
        if queue.bytes > 0 && queue.bytes + bytes > self.settings.queue_bytes {
            return Err(LogError::Unavailable("too many appends are waiting".to_owned()));
        }
        queue.bytes += bytes;
        queue.jobs.push_back(Job {
            shard,
            at,
            records,
            bytes,
            answer,
        });
        drop(queue);
        self.queued.notify_one();
        Ok(answered)
    }

    /// Waits until something is queued, or the log is dropped.
    async fn queued(&self) {
        self.queued.notified().await;
    }

    /// Waits until the log is dropped.
    async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Moves what fits from the queue into the batch.
    fn absorb(&self, batch: &mut Batch) {
        let bounds = Bounds {
            rows: self.settings.batch_rows,
            bytes: self.settings.batch_bytes,
        };
        let mut queue = self.queue();
        // Folding happens without the lock, so that nobody who appends waits for it.
        let mut jobs = std::mem::take(&mut queue.jobs);
        drop(queue);
        let genesis = |shard| self.genesis(shard).unwrap_or(Hash32::new([0; 32]));
        batch.absorb(&mut jobs, bounds, genesis);
        let mut queue = self.queue();
        jobs.append(&mut queue.jobs);
        queue.bytes = jobs.iter().map(|job| job.bytes).sum();
        queue.jobs = jobs;
    }

    /// Waits for the first append of a batch; `false` if the log was dropped and nothing is left.
    async fn fill(&self, batch: &mut Batch) -> bool {
        loop {
            self.absorb(batch);
            if !batch.is_empty() {
                return true;
            }
            {
                let queue = self.queue();
                if queue.closed && queue.jobs.is_empty() {
                    return false;
                }
            }
            self.queued().await;
        }
    }

    /// Tells other processes where a shard ends now.
    fn notify(&self, shard: Shard, end: Offset) {
        if let Some(notifier) = &self.notifier {
            let sent = notifier.notify(CHANNEL, &shard.to_string(), &end.to_string());
            sent.expect("two numbers can be carried");
        }
    }

    /// Records from the table, without a gap, `from` first; none if there is none at `from`.
    async fn stored(
        &self,
        shard: Shard,
        from: Offset,
        limits: ReadLimits,
        genesis: Hash32,
    ) -> Result<Vec<Arc<Placed>>, LogError> {
        ::metrics::counter!(names::READS_STORED).increment(1);
        let about = self.record_bytes.load(Ordering::Relaxed).max(1);
        let rows = (limits.bytes / about).clamp(1, limits.records.max(1));
        let read = async {
            let mut found = sqlx::query(READ)
                .bind(signed_shard(shard)?)
                .bind(encoded(i64::try_from(from))?)
                .bind(encoded(i64::try_from(rows))?)
                .fetch(&self.pool);
            let (mut taken, mut next) = (Taken::new(limits), from);
            while let Some(row) = found.try_next().await? {
                let (offset, record) = row::read(&row, genesis)?;
                if offset != next {
                    break;
                }
                next = offset.next();
                let hash = hash::record_hash(&record);
                if !taken.take(Arc::new(Placed::new(offset, Slot::Known(record), hash))) {
                    break;
                }
            }
            Ok(taken)
        };
        let taken = read.await.map_err(|error| log_error(&error))?;
        if let Some(mean) = taken.mean_bytes() {
            self.record_bytes.store(mean, Ordering::Relaxed);
        }
        Ok(taken.records)
    }
}

const READ: &str = "SELECT log_offset, time_ms, epoch, version, id, count, kind, prev, stream, idempotency_key, \
     traceparent, seen, value FROM annals.journal WHERE shard = $1 AND log_offset >= $2 ORDER BY log_offset LIMIT $3";

fn hole(shard: Shard, offset: Offset) -> LogError {
    LogError::Refused(format!("the journal has no row {shard}:{offset}, but later ones"))
}

/// What a failure of Postgres means for who uses the log.
fn log_error(error: &sqlx::Error) -> LogError {
    match annals_store::error::class(error) {
        ErrorClass::Transient | ErrorClass::Timeout => LogError::Unavailable(error.to_string()),
        _ => LogError::Refused(error.to_string()),
    }
}
