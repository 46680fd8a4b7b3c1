//! What a log must promise, and nothing more: [`Log`].
//!
//! The words of the promises matter. `Landed` and `HeadMoved` are facts, [`Appended::NotWritten`] says "it did
//! not happen", [`Appended::Unknown`] says "it may have happened, wholly or in part", and no implementation may
//! turn the last into one of the others by guessing. One suite, `conformance`, holds every
//! implementation to this.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use annals_record::fold::Head;
use annals_record::record::{Record, Slot};
use annals_record::{AppName, Generation, Hash32, Offset, RecordId, Shard, ShardCount};
use async_trait::async_trait;

use crate::reader::Entry;

/// An append under way. It goes on if this is dropped: dropping only gives up the answer.
pub type Appending = Pin<Box<dyn Future<Output = Appended> + Send + 'static>>;

/// An append-only log in shards. Dumb: it knows an offset's order, not what a record means.
#[async_trait]
pub trait Log: Send + Sync + fmt::Debug + 'static {
    /// Hands records to the log, in order, behind everything handed over for this shard before.
    ///
    /// The call itself does not wait: order is the order of calls, and several appends may be under way.
    /// `at` is the head that the first record was chained to. A log that can compare (Postgres) writes only if
    /// its head is that one, else [`Appended::HeadMoved`]; one that cannot (Kafka) lands where it lands.
    fn append(&self, shard: Shard, at: Head, records: Vec<Arc<Record>>) -> Appending;

    /// The same, with the hashes that the writer has computed already, so that a log that folds what it appends need
    /// not compute them again.
    ///
    /// A wrong hash would make a wrong chain: hashes come from [`annals_record::hash::record_hash`] of the very record.
    fn append_hashed(&self, shard: Shard, at: Head, records: Vec<Hashed>) -> Appending {
        let records = records.into_iter().map(|hashed| hashed.record);
        self.append(shard, at, records.collect())
    }

    /// Hands over records that another log accepted, for a copy: claims among them begin no term of this process.
    ///
    /// `unsure`: the outcome of an earlier append is not known, so a log that ties the order of appends to a connection
    /// takes another one.
    fn append_copied(&self, shard: Shard, at: Head, records: Vec<Hashed>, unsure: bool) -> Appending {
        let _ = unsure;
        self.append_hashed(shard, at, records)
    }

    /// Durable records of a shard from `from` on, in offset order without a gap, `from` first.
    ///
    /// Waits up to [`ReadLimits::wait`] while there are none. An empty answer says nothing of the log's end.
    ///
    /// # Errors
    /// [`LogError`]; `BeyondEnd` if the durable log ends below `from`.
    async fn read(
        &self,
        shard: Shard,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Vec<Arc<Placed>>, LogError>;

    /// The offset that the next record gets, as far as what is there is durable.
    ///
    /// # Errors
    /// [`LogError`].
    async fn end(&self, shard: Shard) -> Result<Offset, LogError>;

    /// The first offset that is there, which is 0 unless somebody deleted records, and the one that comes next.
    ///
    /// # Errors
    /// [`LogError`].
    async fn bounds(&self, shard: Shard) -> Result<(Offset, Offset), LogError> {
        Ok((Offset::new(0), self.end(shard).await?))
    }

    /// What this log is and what its settings promise.
    ///
    /// # Errors
    /// [`LogError`].
    async fn describe(&self) -> Result<Description, LogError>;
}

/// A record with its hash.
#[derive(Debug, Clone)]
pub struct Hashed {
    /// The record.
    pub record: Arc<Record>,
    /// Its record hash (3-log.md).
    pub hash: Hash32,
}

impl Hashed {
    /// Hashes a record.
    #[must_use]
    pub fn of(record: Arc<Record>) -> Self {
        let hash = annals_record::hash::record_hash(&record);
        Self { record, hash }
    }
}

/// How much one read may bring.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// At most this many records.
    pub records: usize,
    /// No further record once this many bytes are there (one record may exceed it).
    pub bytes: usize,
    /// How long to wait for a first record.
    pub wait: Duration,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            records: 2_000,
            bytes: 4 << 20,
            wait: Duration::from_millis(500),
        }
    }
}

/// What became of an append.
#[derive(Debug, Clone)]
pub enum Appended {
    /// Every record is durable, each at its offset, in the order given. (Whether it counts, the fold says.)
    Landed(Vec<(RecordId, Offset)>),
    /// Nothing was written: the log's head is this one and not the expected one.
    HeadMoved(Head),
    /// Nothing was written and nothing will be.
    NotWritten(LogError),
    /// It may have been written, wholly, in part, or at an unknown offset; or may yet be.
    Unknown(LogError),
}

/// Why a log did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The machinery is away or refuses for now.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// The shard's durable records end below the offset that was asked for.
    #[error("shard {shard} ends at {end}, below the offset {from} that was asked for")]
    BeyondEnd {
        /// The shard.
        shard: Shard,
        /// Its end.
        end: Offset,
        /// What was asked for.
        from: Offset,
    },
    /// It will never work: a record over the limit, a setting, a log of another app.
    #[error("the log refuses: {0}")]
    Refused(String),
}

/// A record at its place. Shared by every reader of a node, so that it is hashed and decoded once.
pub struct Placed {
    /// Its offset.
    pub offset: Offset,
    /// What stands there.
    pub slot: Slot,
    /// Its record hash (3-log.md).
    pub hash: Hash32,
    pub(crate) entry: OnceLock<Arc<Entry>>,
}

impl Placed {
    /// A record at its place.
    pub fn new(offset: Offset, slot: Slot, hash: Hash32) -> Self {
        Self {
            offset,
            slot,
            hash,
            entry: OnceLock::new(),
        }
    }
}

impl fmt::Debug for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placed")
            .field("offset", &self.offset)
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

/// Which log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// In memory, for tests.
    Memory,
    /// The table `journal`.
    Postgres,
    /// A Kafka topic.
    Kafka,
}

/// What an acknowledged record survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Nothing: it is in memory.
    Process,
    /// The loss of the process; one server's disk.
    OneServer,
    /// The loss of a server.
    Replicated,
}

/// One setting that safety rests on.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SettingCheck {
    /// `min.insync.replicas`, `synchronous_commit`.
    pub name: String,
    /// Its value now.
    pub value: String,
    /// What it must be, in words.
    pub wanted: String,
    /// Whether it is.
    pub ok: bool,
}

/// What a log is.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Description {
    /// Its kind.
    pub kind: LogKind,
    /// Whose log.
    pub app: AppName,
    /// How many shards; fixed at creation.
    pub shards: ShardCount,
    /// 1, and one more after each `log copy`.
    pub generation: Generation,
    /// What an acknowledged record survives.
    pub durability: Durability,
    /// The settings that this rests on.
    pub settings: Vec<SettingCheck>,
}
