//! The journal and the snapshots of a [`MemoryLog`], for tests of the engine.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_record::fold::{Fold, Head};
use annals_record::record::Record;
use annals_record::{Offset, Shard, StreamId, hash};
use async_trait::async_trait;

use super::MemoryLog;
use crate::{Checkpoint, LoadRequest, Loaded, Snapshot, StoreError, StreamStore};

/// Journal and snapshots in memory. The journal follows the log by itself, or stands where a test lets it stand.
pub struct MemoryStore {
    log: Arc<MemoryLog>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    shards: HashMap<Shard, Indexed>,
    snapshots: HashMap<StreamId, Snapshot>,
    unavailable: bool,
}

struct Indexed {
    fold: Fold,
    at: Checkpoint,
    /// Goes no further than here.
    until: Offset,
    accepted: HashMap<Offset, Arc<Record>>,
    streams: HashMap<StreamId, Vec<(Offset, Arc<Record>)>>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// The journal of `log`, empty of snapshots.
    pub fn new(log: Arc<MemoryLog>) -> Self {
        Self {
            log,
            inner: Mutex::default(),
        }
    }

    /// Holds the journal of a shard at `until` as an indexer that lags; [`Offset`] `u64::MAX` lets it follow again.
    /// What is indexed already stays.
    pub fn hold(&self, shard: Shard, until: Offset) {
        let mut inner = self.lock();
        self.indexed(&mut inner, shard).until = until;
    }

    /// Makes every call fail until it is set back.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.lock().unavailable = unavailable;
    }

    /// The snapshot of a stream, for a test to look at.
    pub fn snapshot(&self, stream: &StreamId) -> Option<Snapshot> {
        self.lock().snapshots.get(stream).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn available(&self) -> Result<MutexGuard<'_, Inner>, StoreError> {
        let inner = self.lock();
        if inner.unavailable {
            return Err(StoreError::Unavailable("switched off by a test".to_owned()));
        }
        Ok(inner)
    }

    /// The shard's index, brought up to the log's end as far as it may go.
    fn indexed<'a>(&self, inner: &'a mut Inner, shard: Shard) -> &'a mut Indexed {
        let genesis = hash::genesis(self.log.app(), shard, self.log.shard_count());
        let indexed = inner.shards.entry(shard).or_insert_with(|| Indexed {
            fold: Fold::from_genesis(genesis),
            at: Checkpoint::genesis(Head::at_genesis(genesis)),
            until: Offset::new(u64::MAX),
            accepted: HashMap::new(),
            streams: HashMap::new(),
        });
        for placed in self.log.placed_from(shard, indexed.at.head.next) {
            if placed.offset >= indexed.until {
                break;
            }
            let accepted = indexed.fold.step(&placed.slot, placed.hash).is_accept();
            if indexed.fold.head().next == placed.offset {
                break; // halted: the indexer stands still
            }
            indexed.at = Checkpoint {
                head: *indexed.fold.head(),
                last_hash: placed.hash,
                last_ghost: !accepted,
            };
            if let (true, Some(record)) = (accepted, placed.slot.known()) {
                let record = Arc::new(record.clone());
                indexed.accepted.insert(placed.offset, Arc::clone(&record));
                if let Some(stream) = record.stream.clone() {
                    let rows = indexed.streams.entry(stream).or_default();
                    rows.push((placed.offset, record));
                }
            }
        }
        indexed
    }
}

#[async_trait]
impl StreamStore for MemoryStore {
    async fn load(&self, requests: &[LoadRequest]) -> Result<Vec<Loaded>, StoreError> {
        let mut inner = self.available()?;
        let mut loaded = Vec::with_capacity(requests.len());
        for request in requests {
            let snapshot = inner.snapshots.get(&request.stream).cloned();
            let snapshot =
                snapshot.filter(|kept| !request.in_full && kept.fingerprint == request.fingerprint);
            let from = snapshot.as_ref().map_or(Offset::new(0), |kept| kept.offset);
            let indexed = self.indexed(&mut inner, request.shard);
            let rows = indexed.streams.get(&request.stream).into_iter().flatten();
            loaded.push(Loaded {
                rows: rows.filter(|(offset, _)| *offset >= from).cloned().collect(),
                snapshot,
                journal_next: indexed.at.head.next,
            });
        }
        Ok(loaded)
    }

    async fn record_at(&self, shard: Shard, offset: Offset) -> Result<Option<Arc<Record>>, StoreError> {
        let mut inner = self.available()?;
        Ok(self.indexed(&mut inner, shard).accepted.get(&offset).cloned())
    }

    async fn checkpoints(&self, shards: &[Shard]) -> Result<Vec<Checkpoint>, StoreError> {
        let mut inner = self.available()?;
        let at = |shard: &Shard| self.indexed(&mut inner, *shard).at.clone();
        Ok(shards.iter().map(at).collect())
    }

    async fn save_snapshots(&self, snapshots: Vec<Snapshot>) -> Result<(), StoreError> {
        let mut inner = self.available()?;
        for snapshot in snapshots {
            let kept = inner.snapshots.get(&snapshot.stream);
            if kept.is_none_or(|kept| kept.offset <= snapshot.offset) {
                inner.snapshots.insert(snapshot.stream.clone(), snapshot);
            }
        }
        Ok(())
    }

    async fn drop_snapshots(&self, category: &str) -> Result<u64, StoreError> {
        let mut inner = self.available()?;
        let before = inner.snapshots.len();
        inner.snapshots.retain(|stream, _| stream.category() != category);
        let dropped = before - inner.snapshots.len();
        Ok(u64::try_from(dropped).unwrap_or(u64::MAX))
    }
}
