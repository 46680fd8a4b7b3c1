//! Reading single streams: snapshot and journal rows by stream, for cold loads ([`StreamStore`]).

use std::fmt;
use std::sync::Arc;

use annals_record::record::Record;
use annals_record::{Hash32, Offset, Shard, StreamId, Version};
use async_trait::async_trait;
use bytes::Bytes;

use crate::Checkpoint;

/// Journal and snapshots by stream. Read from the primary, never from a replica.
#[async_trait]
pub trait StreamStore: Send + Sync + fmt::Debug + 'static {
    /// Loads many streams with one statement, so that snapshot, rows and checkpoint are of one moment.
    ///
    /// One [`Loaded`] a request, in the order of the requests.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is half loaded.
    async fn load(&self, requests: &[LoadRequest]) -> Result<Vec<Loaded>, StoreError>;

    /// One record by its place, to give a first answer again; `None` if the journal has no accepted record there.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn record_at(&self, shard: Shard, offset: Offset) -> Result<Option<Arc<Record>>, StoreError>;

    /// How far the journal goes for each of these shards, in their order: where a claim begins to read (the indexer's
    /// checkpoint, or `log_head`).
    ///
    /// # Errors
    /// [`StoreError`].
    async fn checkpoints(&self, shards: &[Shard]) -> Result<Vec<Checkpoint>, StoreError>;

    /// The same for one shard.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn checkpoint(&self, shard: Shard) -> Result<Checkpoint, StoreError> {
        let one = self.checkpoints(&[shard]).await?;
        let missing = || StoreError::Corrupt(format!("no checkpoint was given for shard {shard}"));
        one.into_iter().next().ok_or_else(missing)
    }

    /// Keeps snapshots; an older one never replaces a newer one.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn save_snapshots(&self, snapshots: Vec<Snapshot>) -> Result<(), StoreError>;

    /// Drops every snapshot of a category, because one of them was found to be wrong.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn drop_snapshots(&self, category: &str) -> Result<u64, StoreError>;
}

/// One stream to load.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// Its shard.
    pub shard: Shard,
    /// The stream.
    pub stream: StreamId,
    /// A snapshot with another fingerprint is passed over, and all rows are read.
    pub fingerprint: Hash32,
    /// Pass over every snapshot: the check of one load in a thousand.
    pub in_full: bool,
}

/// What the journal knows of one stream.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The newest snapshot of the wanted fingerprint.
    pub snapshot: Option<Snapshot>,
    /// Commits and refusals at or above the snapshot's offset, by offset.
    pub rows: Vec<(Offset, Arc<Record>)>,
    /// How far the journal went at that moment: every accepted record below is in it.
    pub journal_next: Offset,
}

/// A stream's state at a place in its shard.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The stream.
    pub stream: StreamId,
    /// True up to here: records at or above it are not in it.
    pub offset: Offset,
    /// How many events the stream had.
    pub version: Version,
    /// Of the state's schema and revision.
    pub fingerprint: Hash32,
    /// The state as JSON.
    pub state: Bytes,
    /// The idempotency keys that the stream remembers, oldest first.
    pub keys: Vec<KeyTrail>,
}

/// A remembered idempotency key: where its record stands, and when it was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTrail {
    /// The first eight bytes of the key's hash, big-endian.
    pub hash: u64,
    /// Where its record stands.
    pub offset: Offset,
    /// The record's time in ms.
    pub time_ms: i64,
}

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres is away or refuses for now.
    #[error("the journal is unavailable: {0}")]
    Unavailable(String),
    /// What stands there does not read.
    #[error("the journal holds what this program cannot read: {0}")]
    Corrupt(String),
}
